// The page's own elements. Gradio puts them into its tabs; each builds itself as soon as it is there.

import { KeyField } from "./key.js";
import { Talk } from "./talk.js";
import { Inspector } from "./inspector.js";

customElements.define("audiollm-key", KeyField);
customElements.define("audiollm-talk", Talk);
customElements.define("audiollm-inspector", Inspector);

"""Commands that go on until they are stopped: a server, and a chat in the terminal."""

"""The sub-commands of ``audiollm``, one function each; heavy libraries are imported inside the functions."""

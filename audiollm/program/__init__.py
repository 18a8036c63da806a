"""Programs: a function or a config class as a command, whose user errors are one line and exit status 1.

Reading order: ``running`` (``run_program``, errors) → ``spelling`` (how options may be typed) → ``missing_values``
(names without a value in files) → ``parser`` (the parser, its help) → ``option_groups`` (under which heading an option
is shown) → ``made`` (configs inside of a YAML file).
"""

from .made import made_of
from .missing_values import refuse_missing_values
from .parser import DashedParser, as_option, be_verbose, kind_of, names_of, wanted
from .running import (
    MAX_CONFIG_BYTES,
    MAX_CONFIG_DEPTH,
    USER_ERRORS,
    ProgramError,
    check_config_file,
    errors_as_one_line,
    log_to_stderr,
    run_program,
)
from .spelling import did_you_mean, spelt_out, with_named_option

__all__ = [
    "MAX_CONFIG_BYTES",
    "MAX_CONFIG_DEPTH",
    "USER_ERRORS",
    "DashedParser",
    "ProgramError",
    "as_option",
    "be_verbose",
    "check_config_file",
    "did_you_mean",
    "errors_as_one_line",
    "kind_of",
    "log_to_stderr",
    "made_of",
    "names_of",
    "refuse_missing_values",
    "run_program",
    "spelt_out",
    "wanted",
    "with_named_option",
]

"""The multiple-choice benchmarks: layout and rule of each."""

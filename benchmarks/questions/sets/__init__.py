"""The benchmarks of questions: layout of the data, rule of grading and tables of each."""

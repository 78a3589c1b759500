"""The command line: one module for each group of commands; nothing else prints.

A command parses its options, calls one stage with a project, and shows the result on standard
output; progress and notes go to standard error.
"""

"""Command line: one module for each verb, each of them thin: parse, read, call the library, write."""

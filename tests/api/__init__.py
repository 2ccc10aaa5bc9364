"""The contract that programs are written against."""

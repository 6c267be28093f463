"""`python -m tests.validation`: prints the table for the analysis server's README."""

from tests.validation.pairs import rows, table

if __name__ == "__main__":
    print(table(list(rows())))

"""The microservice chassis: the code that services share, and nothing that only one of them needs."""

"""The microservice chassis: what every service stands on, and nothing of what any one of them does."""

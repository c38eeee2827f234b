"""The same model behind servers that a user would pick otherwise, each as its documentation recommends.

They run in an environment of their own, which ``make bench-peers`` makes, with two workers and a song as the body.
"""

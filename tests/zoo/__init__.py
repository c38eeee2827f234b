"""Model files that would hurt, each with what the server must say of it: real files, made by real libraries.

Those with the number of a vulnerability are what it was about, in a form that later Keras may refuse by itself.
"""

from tests.zoo.archives import archives
from tests.zoo.arguments import arguments, branches
from tests.zoo.making import Animal
from tests.zoo.names import lambdas, names, operations, training
from tests.zoo.objects import objects
from tests.zoo.sizes import sizes, texts


def animals() -> list[Animal]:
    """Return all of them."""
    sources = (
        lambdas(wrapped=False),
        lambdas(wrapped=True),
        names(),
        operations(),
        training(),
        sizes(),
        arguments(),
        branches(),
        texts(),
        archives(),
        objects(),
    )
    return [animal for source in sources for animal in source]

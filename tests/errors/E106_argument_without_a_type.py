# aisc check FILE:f
def f(x, steps: int):
    return x * steps

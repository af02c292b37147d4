# aisc check FILE:f
def f(x: "f32[n]"):
    for v in x:
        yield v

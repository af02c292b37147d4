# aisc check FILE:f
def f(x: "f32[n]"):
    if x.sum() > 0:
        y = x * 2
    return y

# aisc check FILE
def f(x: "f32[n]"):
    return x

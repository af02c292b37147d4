# aisc check FILE:f
def f(x: "f32[n]"):
    found = []
    for k in range(len(x)):
        found.append(x[k] * 2)
    return found

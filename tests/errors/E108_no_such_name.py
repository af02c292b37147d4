# aisc check FILE:scaled
factor = 2.0


def scaled(x: "f32[n]"):
    return x * facter

# aisc check FILE:f
exec("def f(x):\n    return x")

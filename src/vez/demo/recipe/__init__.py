"""How the embedded base is made: one module a model, run in order by `vez.demo.make_base`."""

"""What networks are made of, each with its gradient by hand: frozen weights get none, and little is kept for it.

Which way of computing is taken depends on shapes, formats and the kind of processor alone, never on a measurement: a
run that is resumed on its machine takes the same ways again, bit for bit.
"""

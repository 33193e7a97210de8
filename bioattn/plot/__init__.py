"""Pictures of saved results: arrays and tables in, Matplotlib Axes out.

Nothing here needs torch, a model or a file: every function takes what a result
table holds, draws on the axes it is given (or on new ones) and returns them.
`bioattn.plot.save.svg_bytes` turns the figure into the same bytes every time.
"""

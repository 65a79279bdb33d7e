"""Graph to Graph, one pass per file. `pipeline.py` is the list of them; there is no registry."""

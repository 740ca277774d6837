class Mips: pass
mips_queries=mips_rows=None

from dataclasses import dataclass
from functools import partial
import jax, jax.numpy as jnp
from fsparse.matmul import sampled_matmul
@partial(jax.tree_util.register_dataclass, data_fields=["planes"], meta_fields=["num_tables","num_bits"])
@dataclass(frozen=True)
class SimHash:
    planes: jax.Array
    num_tables: int
    num_bits: int
    @property
    def num_buckets(self): return 2**self.num_bits
    @property
    def dim(self): return self.planes.shape[1]
def simhash(key, dim, *, num_tables, num_bits):
    return SimHash(jax.random.normal(key,(num_tables*num_bits,dim)),num_tables,num_bits)
def codes(f,x):
    p=sampled_matmul(x,f.planes,jnp.arange(len(f.planes),dtype=jnp.int32))>0
    return jnp.sum(p.reshape(-1,f.num_tables,f.num_bits)<<jnp.arange(f.num_bits),axis=2,dtype=jnp.int32)
def probes(f,x,num): raise NotImplementedError

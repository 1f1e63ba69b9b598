//! What the tests share: a C caller of any PKCS#11 module, a raw wire client, a laboratory of real appliances with or
//! without fault proxies, a certificate authority, partitions of the same process, and an allocator that tells.

pub mod authority;
pub mod contract;
pub mod inside;
pub mod keys;
pub mod lab;
pub mod memory;
pub mod p11;
pub mod proxy;
pub mod values;
pub mod wire;

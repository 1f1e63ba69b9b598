//! What the tests share: a C caller of any PKCS#11 module, a raw wire client, a laboratory of real appliances with or
//! without fault proxies, a certificate authority, and partitions of the same process.

pub mod authority;
pub mod contract;
pub mod inside;
pub mod keys;
pub mod lab;
pub mod p11;
pub mod proxy;
pub mod values;
pub mod wire;

//! What the tests share: a C caller of any PKCS#11 module, a raw wire client, and a laboratory of real appliances.

pub mod contract;
pub mod keys;
pub mod lab;
pub mod p11;
pub mod values;
pub mod wire;

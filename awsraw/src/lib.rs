//! RSA primitives and long-digest ECDSA over aws-lc-sys.

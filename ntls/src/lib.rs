//! NTLS: frames, mutually authenticated TLS 1.3, links.

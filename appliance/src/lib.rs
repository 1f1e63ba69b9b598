//! hsmd and hsm.

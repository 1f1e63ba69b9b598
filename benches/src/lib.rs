//! What the benchmarks share: the modules that the environment names, each with a session that is logged in.
//!
//! ```text
//! . lab/env.sh                                       a laboratory: P11_MODULE, P11_TOKEN_LABEL, P11_PIN
//! SOFTHSM2_CONF=... SOFTHSM2_LABEL=... SOFTHSM2_PIN=...    a SoftHSM2 token to stand beside it, if there is one
//! cargo bench --package benches
//! ```

use std::path::Path;

use cryptoki_sys::{CK_SESSION_HANDLE, CKF_RW_SESSION, CKU_USER};
use tests::p11::{Outcome, P11};

/// A module under measurement.
pub struct Module {
    /// Its name in the report.
    pub name: &'static str,
    /// Its functions.
    pub p11: P11,
    /// A read/write session, logged in.
    pub session: CK_SESSION_HANDLE,
}

/// Where Debian's package puts SoftHSM2.
const SOFTHSM2: &str = "/usr/lib/softhsm/libsofthsm2.so";

/// The modules that the environment names; those that it does not name are left out.
///
/// # Errors
/// When a named module cannot be logged in to.
pub fn modules() -> Outcome<Vec<Module>> {
    let value = |name: &str| std::env::var(name).ok();
    let named = [
        ("hatoki", value("P11_MODULE"), value("P11_TOKEN_LABEL"), value("P11_PIN")),
        (
            "softhsm2",
            value("SOFTHSM2_CONF").map(|_| SOFTHSM2.to_owned()),
            value("SOFTHSM2_LABEL"),
            value("SOFTHSM2_PIN"),
        ),
    ];
    let mut modules = Vec::new();
    for (name, path, label, pin) in named {
        if let (Some(path), Some(label), Some(pin)) = (path, label, pin) {
            modules.push(open(name, Path::new(&path), &label, pin)?);
        }
    }
    Ok(modules)
}

fn open(name: &'static str, path: &Path, label: &str, pin: String) -> Outcome<Module> {
    let p11 = P11::load(path);
    p11.initialize()?;
    let session = p11.open(p11.slot_of(label)?, CKF_RW_SESSION)?;
    p11.login(session, CKU_USER, &mut pin.into_bytes())?;
    Ok(Module { name, p11, session })
}

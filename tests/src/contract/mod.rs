//! The contract suite: what the standard asks of any module, as one table of plain functions over the C functions.
//!
//! A row is a behaviour. It runs in a process that has loaded one module, starts with no session open, and panics or
//! answers a failed call where the module breaks the contract. `deviations` holds what other modules do differently;
//! Hatoki's own deviations (docs/adr/0006-deviations.md) are expectations in the rows, so none is skipped there.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use cryptoki_sys::*;

use crate::p11::{Failed, Mech, Outcome, P11, Tmpl, rsa_pair};

/// Calls one function of the list with the very arguments given and answers its `CK_RV`.
macro_rules! raw {
    ($cx:expr, $name:ident ( $($argument:expr),* $(,)? )) => {{
        let function = $cx.p11.list().$name.expect("every function is present");
        // SAFETY: the function is of the module's list; the arguments are what the row wants to try on it, and the
        // standard has the module check them or they are valid for the call.
        unsafe { function($($argument),*) }
    }};
}

/// The rows of a file: section of the standard, then the function.
macro_rules! rows {
    ($($section:literal => $name:ident),* $(,)?) => {
        /// This file's part of the table.
        pub(super) const ROWS: &[super::Row] =
            &[$(super::Row { name: stringify!($name), section: $section, run: $name }),*];
    };
}

mod arguments;
mod attributes;
pub mod deviations;
mod digest;
mod encrypt;
mod find;
mod generate;
mod lengths;
mod life_cycle;
mod login;
mod objects;
mod operation_end;
mod program;
mod sessions;
mod sign;
mod sign_ec;
mod sign_mac;
mod slots;
mod vectors;

pub use program::play;

/// One behaviour.
#[derive(Clone, Copy)]
pub struct Row {
    /// Unique in the table.
    pub name: &'static str,
    /// Where the standard, or this project's rule, says so.
    pub section: &'static str,
    /// Shows the behaviour or panics.
    pub run: fn(&Context) -> Outcome<()>,
}

/// Every row, in the order in which they run.
pub fn table() -> Vec<Row> {
    [
        life_cycle::ROWS,
        slots::ROWS,
        sessions::ROWS,
        login::ROWS,
        objects::ROWS,
        attributes::ROWS,
        find::ROWS,
        generate::ROWS,
        sign::ROWS,
        sign_ec::ROWS,
        sign_mac::ROWS,
        encrypt::ROWS,
        digest::ROWS,
        lengths::ROWS,
        operation_end::ROWS,
        arguments::ROWS,
    ]
    .concat()
}

/// The module under test and how to get into its token.
pub struct Context {
    /// The module, initialised between rows.
    pub p11: P11,
    /// The token's slot.
    pub slot: CK_SLOT_ID,
    /// The token's label.
    pub label: String,
    /// The user's PIN.
    pub pin: String,
    /// The security officer's PIN.
    pub so_pin: String,
    /// Whether this is Hatoki, whose own rules (docs/adr/0006-deviations.md) then hold besides the standard.
    pub hatoki: bool,
}

/// A session handle.
pub(crate) type Session = CK_SESSION_HANDLE;
/// An object handle.
pub(crate) type Object = CK_OBJECT_HANDLE;

impl Context {
    /// Loads the module named by `P11_MODULE` and finds the token of `P11_TOKEN_LABEL`.
    ///
    /// # Panics
    /// When the environment does not say all of it, or the token is not there.
    pub fn from_environment() -> Self {
        let value = |name: &str| {
            std::env::var(name).unwrap_or_else(|_| panic!("{name} is wanted in the environment"))
        };
        let p11 = P11::load(Path::new(&value("P11_MODULE")));
        Self::of(p11, value("P11_TOKEN_LABEL"), value("P11_PIN"), value("P11_SO_PIN"))
    }

    /// Initialises a module and finds the token of this label.
    ///
    /// # Panics
    /// When the token is not there.
    pub fn of(p11: P11, label: String, pin: String, so_pin: String) -> Self {
        p11.initialize().expect("C_Initialize succeeds");
        let slot = p11.slot_of(&label).expect("the token is in a slot");
        let info = p11.info().expect("C_GetInfo succeeds");
        let hatoki = String::from_utf8_lossy(&info.libraryDescription).contains("Hatoki")
            || String::from_utf8_lossy(&info.manufacturerID).contains("Hatoki");
        Self { p11, slot, label, pin, so_pin, hatoki }
    }

    /// Runs one row from a clean start; `Err` says what was wanted and what was found.
    pub fn run(&self, row: &Row) -> Result<(), String> {
        match self.p11.initialize() {
            Ok(()) | Err(Failed { rv: CKR_CRYPTOKI_ALREADY_INITIALIZED, .. }) => {}
            Err(failed) => return Err(describe(failed)),
        }
        self.p11.close_all(self.slot).map_err(describe)?;
        let outcome = catch_unwind(AssertUnwindSafe(|| (row.run)(self)));
        let _ = self.p11.close_all(self.slot);
        match outcome {
            Ok(Ok(())) => Ok(()),
            Ok(Err(failed)) => Err(describe(failed)),
            Err(panic) => Err(panic
                .downcast_ref::<String>()
                .cloned()
                .or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()))
                .unwrap_or_else(|| "a panic without words".to_owned())),
        }
    }

    /// A read/write session without a login.
    fn open(&self) -> Outcome<Session> {
        self.p11.open(self.slot, CKF_RW_SESSION)
    }

    /// A read/write session with the user logged in.
    fn user(&self) -> Outcome<Session> {
        let session = self.open()?;
        self.login(session)?;
        Ok(session)
    }

    fn login(&self, session: Session) -> Outcome<()> {
        self.p11.login(session, CKU_USER, &mut self.pin.clone().into_bytes())
    }

    /// A login as security officer.
    fn login_so(&self, session: Session) -> Outcome<()> {
        self.p11.login(session, CKU_SO, &mut self.so_pin.clone().into_bytes())
    }

    /// The suite's RSA-2048 pair, a token object made by the first row that needs it: public, private.
    fn rsa(&self, session: Session) -> Outcome<(Object, Object)> {
        const LABEL: &str = "contract rsa";
        let one = |class| {
            let tmpl = Tmpl::new().bytes(CKA_LABEL, LABEL.as_bytes()).ulong(CKA_CLASS, class);
            Ok(self.p11.find(session, tmpl)?.first().copied())
        };
        match (one(CKO_PUBLIC_KEY)?, one(CKO_PRIVATE_KEY)?) {
            (Some(public), Some(private)) => Ok((public, private)),
            _ => rsa_pair(&self.p11, session, true, LABEL, 0xc0),
        }
    }

    /// A session secret key with this value that may do everything its type can.
    fn secret(&self, session: Session, kind: CK_KEY_TYPE, value: &[u8]) -> Outcome<Object> {
        self.p11.create_object(session, secret_template(kind, value))
    }

    /// A session AES-128 key.
    fn aes(&self, session: Session) -> Outcome<Object> {
        self.secret(session, CKK_AES, &[0x5a; 16])
    }

    /// What the use of a handle of no key answers; older modules name the object instead of the key.
    fn no_key(&self) -> &'static [CK_RV] {
        if self.hatoki {
            &[CKR_KEY_HANDLE_INVALID]
        } else {
            &[CKR_KEY_HANDLE_INVALID, CKR_OBJECT_HANDLE_INVALID]
        }
    }

    /// A session HMAC key.
    fn mac(&self, session: Session) -> Outcome<Object> {
        self.secret(session, CKK_GENERIC_SECRET, &[0xa5; 64])
    }
}

/// What `Context::secret` makes.
fn secret_template(kind: CK_KEY_TYPE, value: &[u8]) -> Tmpl {
    let tmpl = Tmpl::new()
        .ulong(CKA_CLASS, CKO_SECRET_KEY)
        .ulong(CKA_KEY_TYPE, kind)
        .bool(CKA_TOKEN, false)
        .bool(CKA_SENSITIVE, false)
        .bool(CKA_EXTRACTABLE, true)
        .bytes(CKA_VALUE, value);
    if kind == CKK_AES {
        tmpl.bool(CKA_ENCRYPT, true).bool(CKA_DECRYPT, true)
    } else {
        tmpl.bool(CKA_SIGN, true).bool(CKA_VERIFY, true)
    }
}

/// A data object.
fn data_template(token: bool, private: bool, label: &str, value: &[u8]) -> Tmpl {
    Tmpl::new()
        .ulong(CKA_CLASS, CKO_DATA)
        .bool(CKA_TOKEN, token)
        .bool(CKA_PRIVATE, private)
        .bytes(CKA_LABEL, label.as_bytes())
        .bytes(CKA_VALUE, value)
}

/// A mechanism without parameter.
fn plain(kind: CK_MECHANISM_TYPE) -> Mech {
    Mech::plain(kind)
}

/// The standard's name of a return value.
fn name(rv: CK_RV) -> String {
    spec::numbers::Rv(rv).to_string()
}

fn describe(failed: Failed) -> String {
    format!("{} answered {}, CKR_OK was wanted", failed.function, name(failed.rv))
}

/// The call must fail with one of these.
#[track_caller]
fn refused<T>(outcome: Outcome<T>, wanted: &[CK_RV]) {
    let names: Vec<String> = wanted.iter().map(|rv| name(*rv)).collect();
    match outcome {
        Ok(_) => panic!("the call succeeded, {} was wanted", names.join(" or ")),
        Err(failed) => assert!(
            wanted.contains(&failed.rv),
            "{} answered {}, {} was wanted",
            failed.function,
            name(failed.rv),
            names.join(" or ")
        ),
    }
}

/// The raw call must answer one of these.
#[track_caller]
fn answered(rv: CK_RV, wanted: &[CK_RV]) {
    let names: Vec<String> = wanted.iter().map(|rv| name(*rv)).collect();
    assert!(wanted.contains(&rv), "the call answered {}, {} was wanted", name(rv), names.join(" or "));
}

/// The bytes of hexadecimal digits; blanks are skipped.
fn hex(digits: &str) -> Vec<u8> {
    let digits: Vec<u8> = digits.bytes().filter(|byte| !byte.is_ascii_whitespace()).collect();
    let value = |digit: u8| char::from(digit).to_digit(16).expect("vectors are hexadecimal");
    digits
        .chunks(2)
        .map(|pair| u8::try_from(value(pair[0]) << 4 | value(pair[1])).expect("two digits are a byte"))
        .collect()
}

/// A number of the standard from its canonical attribute bytes.
#[track_caller]
fn ulong(bytes: &[u8]) -> CK_ULONG {
    CK_ULONG::from_ne_bytes(bytes.try_into().expect("a CK_ULONG attribute has the size of a CK_ULONG"))
}

#[cfg(test)]
mod tests {
    //! The table is whole.
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn names_are_unique_and_sections_are_named() {
        let rows = table();
        let names: BTreeSet<&str> = rows.iter().map(|row| row.name).collect();
        assert_eq!(names.len(), rows.len(), "two rows have one name");
        assert!(rows.iter().all(|row| !row.section.is_empty()));
    }

    #[test]
    fn every_deviation_names_a_row_and_a_reason() {
        let rows = table();
        for deviation in deviations::SOFTHSM2 {
            assert!(rows.iter().any(|row| row.name == deviation.row), "no row is called {}", deviation.row);
            assert!(deviation.reason.len() > 20, "{} has no reason", deviation.row);
        }
    }
}

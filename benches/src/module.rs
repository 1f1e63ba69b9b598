//! A PKCS #11 module as contestant: loaded by its path, with the keys and objects that the work needs.

use std::path::Path;
use std::sync::{Mutex, PoisonError};

use cryptoki_sys::*;
use hatoki as _;
use tests::p11::{Failed, Outcome, P11, Tmpl, p256_pair, rsa_pair, secret_key};
use zeroize::Zeroizing;

use crate::caller::{Mechanism, Session};
use crate::work::{Contestant, Work, Worker, prove};

/// Where Debian's package puts SoftHSM2.
pub const SOFTHSM2: &str = "/usr/lib/softhsm/libsofthsm2.so";
/// Data objects among which one is searched.
const OBJECTS: usize = 100;
/// What is signed, encrypted and digested is cut out of so much.
const DATA_BYTES: usize = 1 << 20;
/// What an encryption adds, and the longest signature.
const MORE_BYTES: usize = 512;

unsafe extern "C" {
    /// The library's own entry; the crate `hatoki` is linked into this program.
    fn C_GetFunctionList(list: *mut *mut CK_FUNCTION_LIST) -> CK_RV;
}

/// The module that this program links.
pub fn linked() -> P11 {
    P11::of(C_GetFunctionList, None)
}

/// A public key and its private one.
#[derive(Clone, Copy)]
struct Pair {
    public: CK_OBJECT_HANDLE,
    private: CK_OBJECT_HANDLE,
}

/// The keys of the work.
#[derive(Clone, Copy)]
struct Keys {
    p256: Pair,
    rsa: Pair,
    aes: CK_OBJECT_HANDLE,
    hmac: CK_OBJECT_HANDLE,
}

impl Keys {
    fn new(p11: &P11, owner: CK_SESSION_HANDLE, on_token: bool) -> Outcome<Self> {
        let pair = |(public, private)| Pair { public, private };
        Ok(Self {
            p256: pair(p256_pair(p11, owner, on_token, "bench", 1)?),
            rsa: pair(rsa_pair(p11, owner, on_token, "bench", 2)?),
            aes: secret_key(p11, owner, CKM_AES_KEY_GEN, 32, on_token, "bench")?,
            hmac: secret_key(p11, owner, CKM_GENERIC_SECRET_KEY_GEN, 32, on_token, "bench")?,
        })
    }

    /// The key that both makes and verifies MACs.
    fn mac(self) -> Pair {
        Pair { public: self.hmac, private: self.hmac }
    }

    fn all(self) -> [CK_OBJECT_HANDLE; 6] {
        let Self { p256, rsa, aes, hmac } = self;
        [p256.public, p256.private, rsa.public, rsa.private, aes, hmac]
    }
}

/// A token of a loaded module, logged in, with its objects. They are of the owner's session or of the token, and of the token
/// they are destroyed when this is dropped.
pub struct Token {
    p11: P11,
    slot: CK_SLOT_ID,
    owner: CK_SESSION_HANDLE,
    pin: Zeroizing<Vec<u8>>,
    on_token: bool,
    data: Vec<u8>,
    /// None after logins were measured, until one is needed.
    keys: Mutex<Option<Keys>>,
    searched: Vec<CK_OBJECT_HANDLE>,
}

impl Token {
    /// Loads the module at a path and makes the objects on its token of that label.
    ///
    /// # Errors
    /// What the module answers.
    pub fn open(path: &Path, label: &str, pin: String, on_token: bool) -> Outcome<Self> {
        let p11 = P11::load(path);
        p11.initialize()?;
        Self::of(p11, label, pin, on_token)
    }

    /// The same with the module that this program links, which takes its memory from this program's allocator.
    ///
    /// # Errors
    /// What the module answers.
    pub fn linked(label: &str, pin: String, on_token: bool) -> Outcome<Self> {
        let p11 = linked();
        p11.initialize()?;
        Self::of(p11, label, pin, on_token)
    }

    /// The same over a module that is initialised.
    ///
    /// # Errors
    /// What the module answers.
    pub fn of(p11: P11, label: &str, pin: String, on_token: bool) -> Outcome<Self> {
        let slot = p11.slot_of(label)?;
        let owner = p11.open(slot, CKF_RW_SESSION)?;
        let mut pin = Zeroizing::new(pin.into_bytes());
        p11.login(owner, CKU_USER, &mut pin)?;
        let keys = Mutex::new(Some(Keys::new(&p11, owner, on_token)?));
        let data: Vec<u8> = (0..DATA_BYTES).map(|at| at.to_le_bytes()[at % 3]).collect();
        let mut token = Self { p11, slot, owner, pin, on_token, data, keys, searched: Vec::new() };
        for number in 0..OBJECTS {
            let made = named(number).bool(CKA_TOKEN, on_token).bool(CKA_PRIVATE, false);
            let made = made.bytes(CKA_VALUE, &token.data[..64]);
            token.searched.push(token.p11.create_object(owner, made)?);
        }
        Ok(token)
    }

    /// The private P-256 key.
    ///
    /// # Errors
    /// What the module answers when it has to be made.
    pub fn p256(&self) -> Outcome<CK_OBJECT_HANDLE> {
        Ok(self.keys()?.p256.private)
    }

    /// The keys, made if there are none.
    fn keys(&self) -> Outcome<Keys> {
        let mut keys = self.keys.lock().unwrap_or_else(PoisonError::into_inner);
        match *keys {
            Some(keys) => Ok(keys),
            None => Ok(*keys.insert(Keys::new(&self.p11, self.owner, self.on_token)?)),
        }
    }

    /// Destroys the keys, if there are any.
    fn destroy_keys(&self) -> Outcome<()> {
        let keys = self.keys.lock().unwrap_or_else(PoisonError::into_inner).take();
        let mut all = keys.into_iter().flat_map(Keys::all);
        all.try_for_each(|key| self.p11.destroy_object(self.owner, key))
    }

    /// A session of a worker's own; closed when it is dropped.
    ///
    /// # Errors
    /// What the module answers.
    pub fn session(&self) -> Outcome<Session<'_>> {
        Ok(Session { p11: &self.p11, handle: self.p11.open(self.slot, CKF_RW_SESSION)? })
    }

    fn signing(&self, kind: CK_MECHANISM_TYPE, pair: Pair, bytes: usize) -> Outcome<Worker<'_>> {
        let (session, data) = (self.session()?, &self.data[..bytes]);
        let (mut mechanism, mut output) = (Mechanism::Plain(kind), [0; MORE_BYTES]);
        let length = session.sign(&mut mechanism, pair.private, data, &mut output)?;
        session.verify(&mut mechanism, pair.public, data, &output[..length])?;
        Ok(Box::new(move || {
            let made = session.sign(&mut mechanism, pair.private, data, &mut output)?;
            prove(made == length, "C_Sign")
        }))
    }

    fn verifying(&self, kind: CK_MECHANISM_TYPE, pair: Pair, bytes: usize) -> Outcome<Worker<'_>> {
        let (session, data) = (self.session()?, &self.data[..bytes]);
        let (mut mechanism, mut output) = (Mechanism::Plain(kind), [0; MORE_BYTES]);
        let length = session.sign(&mut mechanism, pair.private, data, &mut output)?;
        let other = &self.data[1..=bytes];
        let refused = session.verify(&mut mechanism, pair.public, other, &output[..length]);
        prove(refused.is_err_and(|failed| failed.rv == CKR_SIGNATURE_INVALID), "C_Verify")?;
        Ok(Box::new(move || session.verify(&mut mechanism, pair.public, data, &output[..length])))
    }

    /// Encryption; an IV of GCM is never used twice with the key.
    fn encrypting(&self, mut mechanism: Mechanism, bytes: usize) -> Outcome<Worker<'_>> {
        let (session, data, mut output) = (self.session()?, &self.data[..bytes], vec![0; bytes + MORE_BYTES]);
        let (key, mut clear) = (self.keys()?.aes, output.clone());
        mechanism.renew();
        let length = session.encrypt(&mut mechanism, key, data, &mut output)?;
        let decrypted = session.decrypt(&mut mechanism, key, &output[..length], &mut clear)?;
        prove(&clear[..decrypted] == data, "C_Encrypt")?;
        Ok(Box::new(move || {
            mechanism.renew();
            let made = session.encrypt(&mut mechanism, key, data, &mut output)?;
            prove(made == length, "C_Encrypt")
        }))
    }

    /// Decryption of the same again and again.
    fn decrypting(&self, mut mechanism: Mechanism, bytes: usize) -> Outcome<Worker<'_>> {
        let (session, data, mut clear) = (self.session()?, &self.data[..bytes], vec![0; bytes + MORE_BYTES]);
        let (key, mut output) = (self.keys()?.aes, clear.clone());
        mechanism.renew();
        let length = session.encrypt(&mut mechanism, key, data, &mut output)?;
        let decrypted = session.decrypt(&mut mechanism, key, &output[..length], &mut clear)?;
        prove(&clear[..decrypted] == data, "C_Decrypt")?;
        Ok(Box::new(move || {
            let made = session.decrypt(&mut mechanism, key, &output[..length], &mut clear)?;
            prove(made == bytes, "C_Decrypt")
        }))
    }

    /// Encryption of so many pieces in one operation.
    fn streaming(&self, pieces: usize) -> Outcome<Worker<'_>> {
        let (session, mut mechanism) = (self.session()?, Mechanism::Cbc([7; 16]));
        let (key, mut output) = (self.keys()?.aes, vec![0; DATA_BYTES + MORE_BYTES]);
        let mut whole = output.clone();
        let length = session.encrypt(&mut mechanism, key, &self.data, &mut whole)?;
        let made = session.encrypt_stream(&mut mechanism, key, (&self.data, 1), &mut output)?;
        prove(made == length && output[..made] == whole[..length], "C_EncryptUpdate")?;
        Ok(Box::new(move || {
            let data = (&self.data[..], pieces);
            let made = session.encrypt_stream(&mut mechanism, key, data, &mut output)?;
            prove(made == pieces * DATA_BYTES, "C_EncryptUpdate")
        }))
    }

    fn digesting(&self) -> Outcome<Worker<'_>> {
        let (session, data, mut output) = (self.session()?, &self.data[..1024], [0; 64]);
        let length = session.digest(data, &mut output)?;
        let wanted = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, data);
        prove(&output[..length] == wanted.as_ref(), "C_Digest")?;
        Ok(Box::new(move || session.digest(data, &mut output).map(drop)))
    }

    fn opening(&self) -> Worker<'_> {
        Box::new(move || {
            let session = self.p11.open(self.slot, CKF_RW_SESSION)?;
            self.p11.close(session)
        })
    }

    fn logging_in(&self) -> Outcome<Worker<'_>> {
        let mut out = LoggedOut::new(self)?;
        let state = || self.p11.session_info(self.owner).map(|info| info.state);
        out.login()?;
        prove(state()? == CKS_RW_USER_FUNCTIONS, "C_Login")?;
        out.logout()?;
        prove(state()? == CKS_RW_PUBLIC_SESSION, "C_Logout")?;
        Ok(Box::new(move || out.login().and_then(|()| out.logout())))
    }

    fn random(&self) -> Outcome<Worker<'_>> {
        let (session, mut output, mut other) = (self.session()?, [0; 32], [0; 32]);
        session.random(&mut output)?;
        session.random(&mut other)?;
        prove(output != other, "C_GenerateRandom")?;
        Ok(Box::new(move || session.random(&mut output)))
    }

    fn finding(&self, number: usize) -> Outcome<Worker<'_>> {
        let (session, mut next) = (self.session()?, number);
        Ok(Box::new(move || {
            // All of it moves in here, not its handle alone: it is closed when it is dropped.
            let session = &session;
            next = (next + 1) % OBJECTS;
            let found = self.p11.find(session.handle, named(next))?;
            prove(found == [self.searched[next]], "C_FindObjects")
        }))
    }

    fn reading(&self) -> Outcome<Worker<'_>> {
        let (session, key, mut output) = (self.session()?, self.keys()?.p256.public, [[0; 256]; 2]);
        let kinds = [CKA_LABEL, CKA_EC_POINT];
        let mut read = move || {
            let lengths = session.attributes(key, kinds, &mut output)?;
            // A point of 65 bytes in its OCTET STRING.
            prove(lengths == [5, 67] && &output[0][..5] == b"bench", "C_GetAttributeValue")
        };
        read()?;
        Ok(Box::new(read))
    }
}

impl Contestant for Token {
    fn worker(&self, work: Work, number: usize) -> Result<Option<Worker<'_>>, Failed> {
        let worker = match work {
            Work::P256Sign => self.signing(CKM_ECDSA, self.keys()?.p256, 32)?,
            Work::P256Verify => self.verifying(CKM_ECDSA, self.keys()?.p256, 32)?,
            Work::Rsa2048Sign => self.signing(CKM_SHA256_RSA_PKCS, self.keys()?.rsa, 64)?,
            Work::Rsa2048Verify => self.verifying(CKM_SHA256_RSA_PKCS, self.keys()?.rsa, 64)?,
            Work::Hmac1k => self.signing(CKM_SHA256_HMAC, self.keys()?.mac(), 1 << 10)?,
            Work::Hmac1kVerify => self.verifying(CKM_SHA256_HMAC, self.keys()?.mac(), 1 << 10)?,
            Work::Gcm1k => self.encrypting(Mechanism::Gcm([0; 12]), 1 << 10)?,
            Work::Gcm1kDecrypt => self.decrypting(Mechanism::Gcm([0; 12]), 1 << 10)?,
            Work::Gcm1m => self.encrypting(Mechanism::Gcm([0; 12]), 1 << 20)?,
            Work::Cbc1k => self.encrypting(Mechanism::Cbc([7; 16]), 1 << 10)?,
            Work::Cbc1m => self.encrypting(Mechanism::Cbc([7; 16]), 1 << 20)?,
            Work::Stream256m | Work::Stream1g => self.streaming(work.pieces().unwrap_or(1))?,
            Work::Digest1k => self.digesting()?,
            Work::Session => self.opening(),
            Work::Login if number == 0 => self.logging_in()?,
            Work::Random => self.random()?,
            Work::Find => self.finding(number)?,
            Work::Attributes => self.reading()?,
            Work::Login | Work::RoundTrip => return Ok(None),
        };
        Ok(Some(worker))
    }
}

impl Drop for Token {
    fn drop(&mut self) {
        // The token may have gone; the figures are out by now.
        let _ = self.destroy_keys();
        if self.on_token {
            for object in &self.searched {
                let _ = self.p11.destroy_object(self.owner, *object);
            }
        }
        let _ = self.p11.finalize();
    }
}

/// The user of a token is logged out: nobody else uses it meanwhile. No private session object would outlive that, and no handle
/// of a private token object: the keys are destroyed first.
struct LoggedOut<'a> {
    token: &'a Token,
    pin: Zeroizing<Vec<u8>>,
}

impl<'a> LoggedOut<'a> {
    fn new(token: &'a Token) -> Outcome<Self> {
        token.destroy_keys()?;
        let out = Self { token, pin: token.pin.clone() };
        out.logout()?;
        Ok(out)
    }

    fn login(&mut self) -> Outcome<()> {
        self.token.p11.login(self.token.owner, CKU_USER, &mut self.pin)
    }

    fn logout(&self) -> Outcome<()> {
        self.token.p11.logout(self.token.owner)
    }
}

impl Drop for LoggedOut<'_> {
    fn drop(&mut self) {
        // Whoever needs the user next is told by the module if it did not work.
        let _ = self.login();
    }
}

/// The template by which one of the data objects is searched, and made.
fn named(number: usize) -> Tmpl {
    // Another client of the same token has its own.
    let label = format!("searched-{}-{number}", std::process::id());
    Tmpl::new().ulong(CKA_CLASS, CKO_DATA).bytes(CKA_LABEL, label.as_bytes())
}

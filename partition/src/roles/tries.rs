//! One PIN try: reserved in the store, then verified, then settled (HA 7, RULES 2.5), one after another for each client
//! in a role.
use aws_lc_rs::{digest, hmac};
use spec::Rv;

use super::Role;
use super::credentials::Verifier;
use crate::error::Refusal;
use crate::partition::{Caller, Partition};
use crate::settings::PIN_BYTES_MAX;
use crate::store::Reserved;

impl Partition {
    /// Whether the PIN is the role's. Spends a try first, unless this client's last PIN was right and is this one
    /// (RULES 2.5); the same tag with the same PIN spends none again.
    pub(crate) fn try_pin(
        &self,
        caller: &Caller,
        role: Role,
        verifier: &Verifier,
        pin: &[u8],
        tag: &[u8],
        now_ms: u64,
    ) -> Result<(), Refusal> {
        let remembered = || self.remembered.knows(role, &caller.client, verifier, pin);
        if remembered() {
            return Ok(());
        }
        let tag = self.try_tag(role, pin, tag);
        let _turn = self.turns.take(role, &caller.client);
        // The one before this one may have brought the same PIN.
        if remembered() {
            return Ok(());
        }
        self.remembered.forget(role, &caller.client);
        let rules = self.settings.try_rules();
        match self.store.reserve_try(role.user().0, &caller.client, &tag, now_ms, &rules)? {
            Reserved::Counted | Reserved::Repeated => {}
            Reserved::Wait(ms) => {
                let text = format!(
                    "too many wrong PINs: wanted {} s of waiting first; no try was spent",
                    ms.div_ceil(1_000)
                );
                // DEVIATION: docs/adr/0006-deviations.md, item 5: the delay passes by itself, nothing is locked for good.
                return Err(Refusal::rv(Rv::PIN_LOCKED, text));
            }
        }
        if pin.len() > PIN_BYTES_MAX as usize || !verifier.accepts(pin) {
            return Err(Rv::PIN_INCORRECT.into());
        }
        self.store.settle_try(role.user().0, &caller.client)?;
        self.remembered.remember(role, &caller.client, verifier, pin);
        Ok(())
    }

    /// Names a try by its tag *and* PIN, under a key of this process: a reused tag with another PIN is another try, and
    /// nothing on the disk helps to guess.
    fn try_tag(&self, role: Role, pin: &[u8], tag: &[u8]) -> [u8; 32] {
        let mut context = hmac::Context::with_key(&self.try_key);
        context.update(&[role.byte()]);
        context.update(digest::digest(&digest::SHA256, tag).as_ref());
        context.update(pin);
        let mut name = [0; 32];
        name.copy_from_slice(context.sign().as_ref());
        name
    }
}

/// The name of a change of credentials or manifest by a client's tag.
pub(crate) fn change_tag(caller: &Caller, tag: &[u8]) -> Vec<u8> {
    let mut context = digest::Context::new(&digest::SHA256);
    context.update(&caller.client);
    context.update(tag);
    context.finish().as_ref().to_vec()
}

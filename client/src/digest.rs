//! Digests: they run in the process (RULES 1.8).
use digests::{Hash, Running};
use spec::flags::mechanism::DIGEST;
use spec::{AttributeType, HandleObject, HandleSession, Mechanism, Rv};

use crate::error::{Error, Result};
use crate::face::{Produced, Room};
use crate::lengths::Expected;
use crate::objects;
use crate::operation::Taken;
use crate::parameters;
use crate::process::Process;

/// A digest in progress.
pub(crate) struct Digesting {
    running: Running,
    /// Whether Update or DigestKey has given it something.
    updated: bool,
}

/// C_DigestInit (PKCS #11 v3.1, 5.12.1).
pub(crate) fn init(process: &Process, session: HandleSession, mechanism: Option<Mechanism>) -> Result<()> {
    let session = process.session(session)?;
    let Some(mechanism) = mechanism else { return session.digest.cancel(process.epoch()) };
    let mut cell = session.digest.take(process.epoch())?;
    cell.check_idle()?;
    parameters::check(&mechanism, DIGEST)?;
    let hash = Hash::from_mechanism(mechanism.mechanism_type.0).ok_or(Rv::MECHANISM_INVALID)?;
    cell.begin(Digesting { running: Running::new(hash), updated: false });
    Ok(())
}

/// C_Digest (PKCS #11 v3.1, 5.12.2): no end of what was begun in parts, and the end of it all the same.
pub(crate) fn whole(process: &Process, session: HandleSession, data: &[u8], room: Room) -> Result<Produced> {
    let session = process.session(session)?;
    let mut cell = session.digest.take(process.epoch())?;
    if cell.operation()?.updated {
        return cell.settle(Err(Rv::OPERATION_NOT_INITIALIZED.into()), true);
    }
    conclude(&mut cell, data, room)
}

/// C_DigestUpdate (PKCS #11 v3.1, 5.12.3).
pub(crate) fn update(process: &Process, session: HandleSession, part: &[u8]) -> Result<()> {
    let session = process.session(session)?;
    let mut cell = session.digest.take(process.epoch())?;
    take(cell.operation()?, part);
    cell.settle(Ok(()), false)
}

fn take(digesting: &mut Digesting, part: &[u8]) {
    digesting.running.update(part);
    digesting.updated = true;
}

/// C_DigestKey (PKCS #11 v3.1, 5.12.4): the value of a secret key that may be read; CKR_KEY_INDIGESTIBLE for others.
pub(crate) fn key(process: &Process, session: HandleSession, key: HandleObject) -> Result<()> {
    let session = process.session(session)?;
    let mut cell = session.digest.take(process.epoch())?;
    cell.operation()?;
    let object = process.handles.look_up(session.slot.id, key);
    let read = object.ok_or(Error::Rv(Rv::KEY_HANDLE_INVALID)).and_then(|object| {
        objects::read(process, &session, &object, &[AttributeType::CLASS, AttributeType::VALUE])
    });
    let outcome = match read {
        Ok(values) => match &values[..] {
            [Ok(class), Ok(value)]
                if spec::value::as_ulong(class) == Some(spec::ObjectClass::SECRET_KEY.0) =>
            {
                take(cell.operation()?, value);
                Ok(())
            }
            _ => Err(Rv::KEY_INDIGESTIBLE.into()),
        },
        Err(Error::Gone) => Err(Rv::KEY_HANDLE_INVALID.into()),
        Err(error) => Err(error),
    };
    cell.settle(outcome, false)
}

/// C_DigestFinal (PKCS #11 v3.1, 5.12.5).
pub(crate) fn last(process: &Process, session: HandleSession, room: Room) -> Result<Produced> {
    let session = process.session(session)?;
    let mut cell = session.digest.take(process.epoch())?;
    cell.operation()?;
    conclude(&mut cell, &[], room)
}

fn conclude(cell: &mut Taken<'_, Digesting>, data: &[u8], room: Room) -> Result<Produced> {
    let running = &mut cell.operation()?.running;
    let outcome = Expected::exactly(running.hash().len_bytes()).answer(room).unwrap_or_else(|| {
        running.update(data);
        Produced::Bytes(running.clone().finish_into(ha::spare_output().unwrap_or_default()).into())
    });
    cell.settle(Ok(outcome), true)
}

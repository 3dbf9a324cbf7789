//! Pairs that were made elsewhere, and are used only if they are what they should be.

use super::pair::{self, Pair};
use super::{Error, Flaw, Wanted};

/// The pair in `text`, if it is what is `wanted` and the authority whose certificate `authority` is has signed it. When it
/// ends is not looked at.
pub fn read(text: &[u8], authority: &[u8], wanted: &Wanted) -> Result<Pair, Error> {
    let pair = Pair::read(text)?;
    let authority = pair::read_certificate(authority)?;
    let certificate = pair::parse(&pair.certificate)?;
    if !pair::has_signed(&authority, &certificate) {
        return Err(Error::Unfit(Flaw::OtherAuthority));
    }
    if !pair::is_for(&certificate, wanted) {
        return Err(Error::Unfit(Flaw::OtherUse));
    }
    drop(certificate);
    Ok(pair)
}

//! Pairs that were made elsewhere, and are used only if they are what they should be.

use super::pair::{self, Pair};
use super::{Bundle, Error, Flaw, Wanted};

/// The pair in `text`, if it is what is `wanted` and one of `authorities` has signed it. When it ends is not looked at.
pub fn read(text: &[u8], authorities: &Bundle, wanted: &Wanted) -> Result<Pair, Error> {
    let pair = Pair::read(text)?;
    judge(&pair.certificate, authorities, wanted)?;
    Ok(pair)
}

/// Whether the certificate `der` is what is `wanted`, and one of `authorities` has signed it.
pub(super) fn judge(der: &[u8], authorities: &Bundle, wanted: &Wanted) -> Result<(), Error> {
    let certificate = pair::parse(der)?;
    if !authorities.signed(&certificate) {
        return Err(Error::Unfit(Flaw::OtherAuthority));
    }
    if !pair::is_for(&certificate, wanted) {
        return Err(Error::Unfit(Flaw::OtherUse));
    }
    Ok(())
}

//! A cipher suite on the command line.

use mls_channel::CipherSuite;

/// A suite by its name or its number.
pub(crate) fn parse_suite(text: &str) -> Result<CipherSuite, String> {
    let number = text.strip_prefix("0x").and_then(|hex| u16::from_str_radix(hex, 16).ok());
    let named =
        |suite: &CipherSuite| number == Some(suite.id()) || text.eq_ignore_ascii_case(suite.name());
    CipherSuite::ALL.iter().copied().find(named).ok_or_else(|| {
        let known = CipherSuite::ALL.iter().map(|suite| format!("{:#06x} {suite}", suite.id()));
        format!("the suites are {}", known.collect::<Vec<_>>().join(", "))
    })
}

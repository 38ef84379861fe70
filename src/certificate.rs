//! What is read in a certificate beside its verification (RFC 5280): its names, its key and its dates.
//!
//! The verification is webpki's. It hides some of the names, so that nobody compares them by hand;
//! here they only become the name of a peer that has been verified, or part of what is shown.

use std::net::IpAddr;

use webpki::EndEntityCert;

use crate::{crypto::SignatureScheme, identity::PublicKey, name};

/// What comes before the key in a SubjectPublicKeyInfo of Ed25519 (RFC 8410, section 4).
const ED25519_SPKI_PREFIX: &[u8] =
    &[0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];
/// What comes before the uncompressed point in one of P-256 (RFC 5480, section 2).
const P256_SPKI_PREFIX: &[u8] = &[
    0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a,
    0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00,
];

const BOOLEAN: u8 = 0x01;
const INTEGER: u8 = 0x02;
const OCTET_STRING: u8 = 0x04;
const OBJECT_IDENTIFIER: u8 = 0x06;
const UTF8_STRING: u8 = 0x0c;
const PRINTABLE_STRING: u8 = 0x13;
const IA5_STRING: u8 = 0x16;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;
const SEQUENCE: u8 = 0x30;
const SET: u8 = 0x31;
const VERSION: u8 = 0xa0;
const EXTENSIONS: u8 = 0xa3;
const EXTENSIONS_OF_A_LIST: u8 = 0xa0;
const RFC822_NAME: u8 = 0x81;
const DNS_NAME: u8 = 0x82;
const URI: u8 = 0x86;
const IP_ADDRESS: u8 = 0x87;

/// id-ce-subjectAltName.
const SUBJECT_ALT_NAME: &[u8] = &[0x55, 0x1d, 0x11];
/// id-ce-cRLNumber.
const CRL_NUMBER: &[u8] = &[0x55, 0x1d, 0x14];
/// id-ce-nameConstraints.
const NAME_CONSTRAINTS: &[u8] = &[0x55, 0x1d, 0x1e];
/// id-at-commonName.
const COMMON_NAME: &[u8] = &[0x55, 0x04, 0x03];

/// The most octets of the number of a revocation list (RFC 5280, section 5.2.3).
const MAX_CRL_NUMBER_LEN: usize = 20;

/// What is in a certificate, as far as it is of use to a human. Nobody has verified it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct CertificateFields {
    /// The common name of the holder, if there is exactly one.
    pub common_name: Option<String>,
    /// The common name of the issuer, if there is exactly one.
    pub issuer: Option<String>,
    /// The subject alternative names that an identity can have; `None` without the extension.
    pub alternative_names: Option<Vec<String>>,
    /// The first second in which it is valid, such as `2030-12-31 23:59:59 UTC`.
    pub not_before: Option<String>,
    /// The last second in which it is valid.
    pub not_after: Option<String>,
    /// The key, if it is one that MLS signs with here.
    pub key: Option<PublicKey>,
}

/// Whether `certificate` certifies `key`.
pub(crate) fn certifies(certificate: &EndEntityCert<'_>, key: &PublicKey) -> bool {
    let Some(prefix) = spki_prefix(key.scheme()) else { return false };
    certificate.subject_public_key_info().as_ref().strip_prefix(prefix) == Some(key.as_bytes())
}

/// The names in the order in which they are to be used as the name of the certificate's holder: the
/// subject alternative names that are a DNS name, a mailbox, a URI or an IP address; without the
/// extension, the common name. Only those that an identity can have, and that have the form of their
/// kind, which is that of no other: whoever may not give a name of one kind cannot give it as another.
pub(crate) fn names(certificate: &[u8]) -> Vec<String> {
    read(certificate).map(|fields| fields.names()).unwrap_or_default()
}

/// The certificate has no subject alternative names, so that its common name is its name.
pub(crate) fn has_common_name_alone(certificate: &[u8]) -> bool {
    read(certificate).is_none_or(|fields| fields.alternative_names.is_none())
}

/// The certificate is of an authority that may give certain names only.
pub(crate) fn has_name_constraints(certificate: &[u8]) -> bool {
    to_be_signed(certificate)
        .and_then(|mut tbs| extension(&mut tbs, EXTENSIONS, NAME_CONSTRAINTS))
        .is_none_or(|constraints| constraints.is_some())
}

/// Of two revocation lists of an authority, the one that was made later has the greater order: its
/// time, and its number.
pub(crate) fn revocation_list_order(list: &[u8]) -> Option<(String, [u8; MAX_CRL_NUMBER_LEN])> {
    let mut tbs = to_be_signed(list)?;
    expect(&mut tbs, INTEGER)?;
    let _signature = expect(&mut tbs, SEQUENCE)?;
    let _issuer = expect(&mut tbs, SEQUENCE)?;
    let this_update = time(&mut tbs)?;
    let mut number = [0; MAX_CRL_NUMBER_LEN];
    if let Some(mut value) = extension(&mut tbs, EXTENSIONS_OF_A_LIST, CRL_NUMBER)? {
        let digits = expect(&mut value, INTEGER)?;
        let digits = digits.strip_prefix(&[0]).unwrap_or(digits);
        let place = number.len().checked_sub(digits.len())?;
        number.get_mut(place..)?.copy_from_slice(digits);
    }
    Some((this_update, number))
}

/// What a revocation list lacks that webpki wants it to have (RFC 5280, section 5).
pub(crate) fn revocation_list_lack(list: &[u8]) -> Option<&'static str> {
    let mut tbs = to_be_signed(list)?;
    // Without a version, it is of version 1.
    if tbs.first() == Some(&SEQUENCE) {
        return Some(
            "it is of version 1, and has to be of version 2; for the lists of `openssl ca`, \
             crl_extensions makes the difference",
        );
    }
    expect(&mut tbs, INTEGER)?;
    let _signature = expect(&mut tbs, SEQUENCE)?;
    let _issuer = expect(&mut tbs, SEQUENCE)?;
    time(&mut tbs)?;
    if !matches!(tbs.first(), Some(&(UTC_TIME | GENERALIZED_TIME))) {
        return Some("it does not say when it will be renewed (nextUpdate)");
    }
    element(&mut tbs)?;
    if tbs.first() == Some(&SEQUENCE) {
        element(&mut tbs)?;
    }
    tbs.is_empty().then_some("it has no extensions, such as its number")
}

impl CertificateFields {
    /// Reads a certificate in DER. `None`: it does not parse.
    pub fn read(certificate: &[u8]) -> Option<Self> {
        read(certificate)
    }

    /// The names that its holder can be known by: the alternative ones, or without the extension the
    /// common name.
    pub fn names(&self) -> Vec<String> {
        match &self.alternative_names {
            Some(names) => names.clone(),
            None => self
                .common_name
                .iter()
                .filter(|name| name::is_identity_name(name))
                .cloned()
                .collect(),
        }
    }
}

fn read(certificate: &[u8]) -> Option<CertificateFields> {
    let mut tbs = to_be_signed(certificate)?;
    if tbs.first() == Some(&VERSION) {
        expect(&mut tbs, VERSION)?;
    }
    expect(&mut tbs, INTEGER)?;
    let _signature = expect(&mut tbs, SEQUENCE)?;
    let issuer = expect(&mut tbs, SEQUENCE)?;
    let mut validity = expect(&mut tbs, SEQUENCE)?;
    let subject = expect(&mut tbs, SEQUENCE)?;
    let key = expect(&mut tbs, SEQUENCE)?;
    let mut fields = CertificateFields {
        common_name: common_name(subject),
        issuer: common_name(issuer),
        alternative_names: None,
        not_before: time(&mut validity),
        not_after: time(&mut validity),
        key: public_key(key),
    };
    if let Some(names) = extension(&mut tbs, EXTENSIONS, SUBJECT_ALT_NAME)? {
        fields.alternative_names = Some(alternative_names(names)?);
    }
    Some(fields)
}

/// What is signed of a certificate or a revocation list.
fn to_be_signed(mut signed: &[u8]) -> Option<&[u8]> {
    expect(&mut expect(&mut signed, SEQUENCE)?, SEQUENCE)
}

/// `None`: there are no certificates of these keys yet.
fn spki_prefix(scheme: SignatureScheme) -> Option<&'static [u8]> {
    match scheme {
        SignatureScheme::ED25519 => Some(ED25519_SPKI_PREFIX),
        SignatureScheme::ECDSA_SECP256R1_SHA256 => Some(P256_SPKI_PREFIX),
        #[cfg(feature = "post-quantum")]
        _ => None,
    }
}

/// The key in the content of a SubjectPublicKeyInfo.
fn public_key(info: &[u8]) -> Option<PublicKey> {
    SignatureScheme::ALL.iter().find_map(|scheme| {
        // Without the tag and the length of the whole, one byte each.
        let key = info.strip_prefix(&spki_prefix(*scheme)?[2..])?;
        PublicKey::new(*scheme, key).ok()
    })
}

/// The content of the extension with this identifier, if it is among those in the element `tag`.
fn extension<'a>(tbs: &mut &'a [u8], tag: u8, identifier: &[u8]) -> Option<Option<&'a [u8]>> {
    while !tbs.is_empty() {
        let (found, mut content) = element(tbs)?;
        if found != tag {
            continue;
        }
        let mut extensions = expect(&mut content, SEQUENCE)?;
        while !extensions.is_empty() {
            let mut extension = expect(&mut extensions, SEQUENCE)?;
            if expect(&mut extension, OBJECT_IDENTIFIER)? != identifier {
                continue;
            }
            if extension.first() == Some(&BOOLEAN) {
                expect(&mut extension, BOOLEAN)?;
            }
            return expect(&mut extension, OCTET_STRING).map(Some);
        }
    }
    Some(None)
}

fn alternative_names(mut names: &[u8]) -> Option<Vec<String>> {
    let mut names = expect(&mut names, SEQUENCE)?;
    let mut usable = Vec::new();
    while !names.is_empty() {
        let (tag, content) = element(&mut names)?;
        let name = match tag {
            // Without regard to case, as a server name is.
            DNS_NAME => {
                ascii(content).filter(|name| is_dns_name(name)).map(str::to_ascii_lowercase)
            }
            RFC822_NAME => ascii(content).filter(|name| is_mailbox(name)).map(str::to_owned),
            URI => ascii(content).filter(|name| is_uri(name)).map(str::to_owned),
            IP_ADDRESS => address(content).map(|address| address.to_string()),
            _ => None,
        };
        usable.extend(name.filter(|name| name::is_identity_name(name)));
    }
    Some(usable)
}

/// Letters, digits, hyphens and points, an underscore as services have it, and an asterisk.
fn is_dns_name(name: &str) -> bool {
    name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._*".contains(&byte))
        && !is_address(name)
}

/// Without the quoted form, in which a local part could have a colon.
fn is_mailbox(name: &str) -> bool {
    let parts = name.split_once('@');
    parts.is_some_and(|(local, domain)| !local.is_empty() && !domain.is_empty())
        && !name.contains(':')
}

/// It begins with a scheme (RFC 3986, section 3.1).
fn is_uri(name: &str) -> bool {
    let is_scheme = |scheme: &str| {
        scheme.starts_with(|first: char| first.is_ascii_alphabetic())
            && scheme.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte))
    };
    name.split_once(':').is_some_and(|(scheme, _)| is_scheme(scheme)) && !is_address(name)
}

fn is_address(name: &str) -> bool {
    name.parse::<IpAddr>().is_ok()
}

/// The common name, if there is exactly one.
fn common_name(mut subject: &[u8]) -> Option<String> {
    let mut found = None;
    while !subject.is_empty() {
        let mut attributes = expect(&mut subject, SET)?;
        while !attributes.is_empty() {
            let mut attribute = expect(&mut attributes, SEQUENCE)?;
            if expect(&mut attribute, OBJECT_IDENTIFIER)? != COMMON_NAME {
                continue;
            }
            let (UTF8_STRING | PRINTABLE_STRING | IA5_STRING, content) = element(&mut attribute)?
            else {
                return None;
            };
            if found.replace(text(content)?.to_owned()).is_some() {
                return None;
            }
        }
    }
    found
}

/// A time in the one form that is allowed, of either type (RFC 5280, section 4.1.2.5).
fn time(validity: &mut &[u8]) -> Option<String> {
    let (tag, content) = element(validity)?;
    let digits = text(content)?.strip_suffix('Z')?;
    let (year, rest) = match tag {
        UTC_TIME if digits.len() == 12 => {
            let century = if digits < "50" { "20" } else { "19" };
            (format!("{century}{}", digits.get(..2)?), digits.get(2..)?)
        }
        GENERALIZED_TIME if digits.len() == 14 => (digits.get(..4)?.to_owned(), digits.get(4..)?),
        _ => return None,
    };
    let pair = |place| rest.get(place..place + 2);
    let [month, day, hour, minute, second] = [pair(0)?, pair(2)?, pair(4)?, pair(6)?, pair(8)?];
    let numeric = digits.bytes().all(|digit| digit.is_ascii_digit());
    numeric.then(|| format!("{year}-{month}-{day} {hour}:{minute}:{second} UTC"))
}

fn text(content: &[u8]) -> Option<&str> {
    str::from_utf8(content).ok()
}

/// As the type IA5String, which has no other characters.
fn ascii(content: &[u8]) -> Option<&str> {
    text(content).filter(|text| text.is_ascii())
}

fn address(content: &[u8]) -> Option<IpAddr> {
    if let Ok(address) = <[u8; 4]>::try_from(content) {
        return Some(address.into());
    }
    <[u8; 16]>::try_from(content).ok().map(IpAddr::from)
}

/// The content of the next element, which has this tag.
fn expect<'a>(input: &mut &'a [u8], tag: u8) -> Option<&'a [u8]> {
    element(input).filter(|(found, _)| *found == tag).map(|(_, content)| content)
}

/// The next element of DER, its tag and its content.
fn element<'a>(input: &mut &'a [u8]) -> Option<(u8, &'a [u8])> {
    let (&[tag, length], mut rest) = input.split_first_chunk()?;
    let length = match length {
        0..=0x7f => usize::from(length),
        // In so many bytes.
        0x81..=0x84 => {
            let (length, after) = rest.split_at_checked(usize::from(length & 0x7f))?;
            rest = after;
            let length = length.iter().fold(0, |length, byte| length << 8 | u32::from(*byte));
            usize::try_from(length).ok()?
        }
        _ => return None,
    };
    let (content, rest) = rest.split_at_checked(length)?;
    *input = rest;
    Some((tag, content))
}

#[cfg(test)]
pub(crate) mod tests;

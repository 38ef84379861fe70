//! The certificates of an X.509 credential (RFC 9420, section 5.3).

use tls_codec::vlen;
#[cfg(any(test, feature = "x509"))]
use tls_codec::{Serialize as _, VLByteSlice};

/// Certificates that a credential may have.
pub(crate) const MAX_CERTIFICATES: usize = 16;

/// Length of the certificates of a credential together, in bytes, with their lengths.
pub(crate) const MAX_CERTIFICATES_LEN: usize = 64 * 1024;

/// Why the certificates of a credential are refused before anybody looks into one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum InvalidCertificates {
    /// There are none, or one is empty, or the lengths are wrong.
    Malformed,
    /// More of them than a credential may have.
    TooLong,
}

/// Encodes the content of `Certificate certificates<V>`. `None`: too long.
#[cfg(any(test, feature = "x509"))]
pub(crate) fn encode_certificates(certificates: &[Vec<u8>]) -> Option<Vec<u8>> {
    let mut encoded = Vec::new();
    for certificate in certificates {
        VLByteSlice(certificate).tls_serialize(&mut encoded).ok()?;
    }
    (certificates.len() <= MAX_CERTIFICATES && encoded.len() <= MAX_CERTIFICATES_LEN)
        .then_some(encoded)
}

/// Decodes the content of `Certificate certificates<V>`. What is in a certificate is not looked at.
pub(crate) fn decode_certificates(mut encoded: &[u8]) -> Result<Vec<Vec<u8>>, InvalidCertificates> {
    if encoded.len() > MAX_CERTIFICATES_LEN {
        return Err(InvalidCertificates::TooLong);
    }
    let mut certificates = Vec::new();
    while !encoded.is_empty() {
        if certificates.len() == MAX_CERTIFICATES {
            return Err(InvalidCertificates::TooLong);
        }
        let (length, _) =
            vlen::read_length(&mut encoded).map_err(|_| InvalidCertificates::Malformed)?;
        let (certificate, rest) = encoded
            .split_at_checked(length)
            .filter(|(certificate, _)| !certificate.is_empty())
            .ok_or(InvalidCertificates::Malformed)?;
        certificates.push(certificate.to_vec());
        encoded = rest;
    }
    if certificates.is_empty() {
        return Err(InvalidCertificates::Malformed);
    }
    Ok(certificates)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn each_certificate_has_its_length() {
        let chain = [vec![1, 2, 3], vec![4; 64]];
        let mut expected = vec![3, 1, 2, 3, 0x40, 64];
        expected.extend([4; 64]);
        assert_eq!(encode_certificates(&chain), Some(expected.clone()));
        assert_eq!(decode_certificates(&expected), Ok(chain.to_vec()));
    }

    // CH-10
    #[test]
    fn what_is_no_chain_is_refused() {
        use InvalidCertificates::{Malformed, TooLong};
        let many = [1, 7].repeat(MAX_CERTIFICATES);
        assert_eq!(decode_certificates(&many).map(|chain| chain.len()), Ok(MAX_CERTIFICATES));
        for (encoded, error) in [
            (vec![], Malformed),
            (vec![0], Malformed),
            (vec![1, 7, 0], Malformed),
            (vec![2, 7], Malformed),
            // Not the shortest form of the length.
            (vec![0x40, 1, 7], Malformed),
            (vec![0xff, 0xff, 0xff, 0xff, 7], Malformed),
            ([1, 7].repeat(MAX_CERTIFICATES + 1), TooLong),
            ([1, 7].repeat(1000), TooLong),
            (vec![7; MAX_CERTIFICATES_LEN + 1], TooLong),
        ] {
            assert_eq!(decode_certificates(&encoded), Err(error), "{} bytes", encoded.len());
        }
    }

    #[test]
    fn a_chain_that_would_be_refused_is_not_encoded() {
        assert_eq!(encode_certificates(&vec![vec![7]; MAX_CERTIFICATES + 1]), None);
        assert_eq!(encode_certificates(&[vec![7; MAX_CERTIFICATES_LEN]]), None);
        assert!(encode_certificates(&[vec![7; MAX_CERTIFICATES_LEN - 4]]).is_some());
    }

    proptest! {
        #[test]
        fn any_bytes_decode_or_do_not(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            if let Ok(chain) = decode_certificates(&bytes) {
                prop_assert_eq!(encode_certificates(&chain), Some(bytes));
            }
        }
    }
}

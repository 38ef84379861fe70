//! Alerts (RFC 8446, section 6).

use std::fmt;

use crate::error::InvalidMessage;

/// An alert record's content: two bytes (RFC 8446, section 6).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct Alert {
    /// What the sender claims about the severity. It decides nothing: the description does.
    pub level: AlertLevel,
    /// What happened.
    pub description: AlertDescription,
}

impl Alert {
    /// The alert with this description, at the level that RFC 8446, section 6 gives it.
    pub fn new(description: AlertDescription) -> Self {
        Self { level: description.level(), description }
    }

    /// Decodes the content of an alert record, which holds exactly one alert.
    ///
    /// # Errors
    ///
    /// [`InvalidMessage::RecordTooShort`] if there is nothing, [`InvalidMessage::Malformed`] if there
    /// is one byte or the level does not exist, [`InvalidMessage::TrailingData`] if there are more
    /// than two bytes (RFC 8446, sections 5.1 and 5.4). An unknown description is no error here; its
    /// receiver treats it as fatal.
    pub fn decode(content: &[u8]) -> Result<Self, InvalidMessage> {
        let &[level, description] = content else {
            return Err(match content.len() {
                0 => InvalidMessage::RecordTooShort,
                1 => InvalidMessage::Malformed("alert"),
                _ => InvalidMessage::TrailingData("alert"),
            });
        };
        let level = match level {
            1 => AlertLevel::Warning,
            2 => AlertLevel::Fatal,
            _ => return Err(InvalidMessage::Malformed("alert")),
        };
        Ok(Self { level, description: description.into() })
    }

    /// The two bytes of the alert.
    pub fn encode(self) -> [u8; 2] {
        [self.level as u8, self.description.into()]
    }
}

/// The level of an [`Alert`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
#[non_exhaustive]
pub enum AlertLevel {
    /// The level of close_notify and user_canceled.
    Warning = 1,
    /// The level of every other alert.
    Fatal = 2,
}

macro_rules! alert_descriptions {
    ($($(#[$doc:meta])* $variant:ident = $number:literal, $name:literal;)*) => {
        /// Why a connection ends (RFC 8446, section 6).
        ///
        /// The names are those of TLS. Where one speaks of certificates, it means MLS
        /// credentials and KeyPackages here.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[non_exhaustive]
        pub enum AlertDescription {
            $($(#[$doc])* $variant,)*
            /// A number that RFC 8446 does not define. `From<u8>` never puts a defined one here.
            Unknown(u8),
        }

        impl AlertDescription {
            /// Every description that RFC 8446 defines.
            #[cfg(test)]
            const DEFINED: &'static [(Self, u8, &'static str)] =
                &[$((Self::$variant, $number, $name)),*];
        }

        impl From<u8> for AlertDescription {
            fn from(number: u8) -> Self {
                match number {
                    $($number => Self::$variant,)*
                    other => Self::Unknown(other),
                }
            }
        }

        impl From<AlertDescription> for u8 {
            fn from(description: AlertDescription) -> Self {
                match description {
                    $(AlertDescription::$variant => $number,)*
                    AlertDescription::Unknown(number) => number,
                }
            }
        }

        /// The name in RFC 8446, for example `bad_record_mac`, or `unknown(n)`.
        impl fmt::Display for AlertDescription {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                match self {
                    $(Self::$variant => f.write_str($name),)*
                    Self::Unknown(number) => write!(f, "unknown({number})"),
                }
            }
        }
    };
}

alert_descriptions! {
    /// The sender will send nothing more on this connection.
    CloseNotify = 0, "close_notify";
    /// A message or record that has no place here.
    UnexpectedMessage = 10, "unexpected_message";
    /// A record failed authentication.
    BadRecordMac = 20, "bad_record_mac";
    /// A record is longer than allowed.
    RecordOverflow = 22, "record_overflow";
    /// No acceptable set of security parameters exists.
    HandshakeFailure = 40, "handshake_failure";
    /// A KeyPackage or credential is corrupt or not valid.
    BadCertificate = 42, "bad_certificate";
    /// A credential is of an unsupported type.
    UnsupportedCertificate = 43, "unsupported_certificate";
    /// A credential was revoked.
    CertificateRevoked = 44, "certificate_revoked";
    /// A credential or KeyPackage is not valid at this time.
    CertificateExpired = 45, "certificate_expired";
    /// A credential is not acceptable for another reason.
    CertificateUnknown = 46, "certificate_unknown";
    /// A field is out of range or contradicts another.
    IllegalParameter = 47, "illegal_parameter";
    /// Nobody whom the sender trusts vouches for the credential.
    UnknownCa = 48, "unknown_ca";
    /// The credential is valid, and its holder has no access.
    AccessDenied = 49, "access_denied";
    /// A message does not decode.
    DecodeError = 50, "decode_error";
    /// A cryptographic operation of the handshake failed.
    DecryptError = 51, "decrypt_error";
    /// The protocol version is not supported.
    ProtocolVersion = 70, "protocol_version";
    /// The sender requires more security than the peer offers.
    InsufficientSecurity = 71, "insufficient_security";
    /// A failure of the sender that has nothing to do with the peer.
    InternalError = 80, "internal_error";
    /// An inappropriate retry after a failed connection (RFC 7507).
    InappropriateFallback = 86, "inappropriate_fallback";
    /// The sender gives up the handshake for a reason outside of the protocol.
    UserCanceled = 90, "user_canceled";
    /// A mandatory extension is missing.
    MissingExtension = 109, "missing_extension";
    /// An extension stands where it must not.
    UnsupportedExtension = 110, "unsupported_extension";
    /// No server has the name that was asked for.
    UnrecognizedName = 112, "unrecognized_name";
    /// An invalid or unacceptable OCSP response.
    BadCertificateStatusResponse = 113, "bad_certificate_status_response";
    /// No acceptable PSK identity was offered.
    UnknownPskIdentity = 115, "unknown_psk_identity";
    /// A credential is required and was not given.
    CertificateRequired = 116, "certificate_required";
    /// No common application protocol.
    NoApplicationProtocol = 120, "no_application_protocol";
}

impl AlertDescription {
    fn level(self) -> AlertLevel {
        match self {
            Self::CloseNotify | Self::UserCanceled => AlertLevel::Warning,
            _ => AlertLevel::Fatal,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        error::Error,
        wire::{MessageAssembler, TwoPartyMessageType},
    };

    // The table of RFC 8446, section 6, typed a second time: a typing error above fails here.
    const RFC_8446: &[(u8, &str)] = &[
        (0, "close_notify"),
        (10, "unexpected_message"),
        (20, "bad_record_mac"),
        (22, "record_overflow"),
        (40, "handshake_failure"),
        (42, "bad_certificate"),
        (43, "unsupported_certificate"),
        (44, "certificate_revoked"),
        (45, "certificate_expired"),
        (46, "certificate_unknown"),
        (47, "illegal_parameter"),
        (48, "unknown_ca"),
        (49, "access_denied"),
        (50, "decode_error"),
        (51, "decrypt_error"),
        (70, "protocol_version"),
        (71, "insufficient_security"),
        (80, "internal_error"),
        (86, "inappropriate_fallback"),
        (90, "user_canceled"),
        (109, "missing_extension"),
        (110, "unsupported_extension"),
        (112, "unrecognized_name"),
        (113, "bad_certificate_status_response"),
        (115, "unknown_psk_identity"),
        (116, "certificate_required"),
        (120, "no_application_protocol"),
    ];

    #[test]
    fn names_and_numbers_are_those_of_the_rfc() {
        let defined: Vec<_> =
            AlertDescription::DEFINED.iter().map(|&(_, number, name)| (number, name)).collect();
        assert_eq!(defined, RFC_8446);
    }

    #[test]
    fn the_variant_is_the_name_in_camel_case() {
        for (description, _, name) in AlertDescription::DEFINED {
            let camel: String = name
                .split('_')
                .flat_map(|word| {
                    let (first, rest) = word.split_at(1);
                    [first.to_uppercase(), rest.to_owned()]
                })
                .collect();
            assert_eq!(format!("{description:?}"), camel);
            assert_eq!(description.to_string(), *name);
        }
    }

    #[test]
    fn every_number_round_trips() {
        for number in 0..=u8::MAX {
            let description = AlertDescription::from(number);
            assert_eq!(u8::from(description), number);
            let defined = RFC_8446.iter().find(|(defined, _)| *defined == number);
            match defined {
                Some((_, name)) => assert_eq!(description.to_string(), *name),
                None => {
                    assert_eq!(description, AlertDescription::Unknown(number));
                    assert_eq!(description.to_string(), format!("unknown({number})"));
                }
            }
            let alert = Alert::new(description);
            assert_eq!(Alert::decode(&alert.encode()), Ok(alert));
        }
    }

    #[test]
    fn only_closures_are_warnings() {
        for number in 0..=u8::MAX {
            let [level, _] = Alert::new(number.into()).encode();
            assert_eq!(level, if [0, 90].contains(&number) { 1 } else { 2 }, "{number}");
        }
    }

    // CH-10
    #[test]
    fn everything_but_two_bytes_with_a_known_level_is_refused() {
        assert_eq!(Alert::decode(&[]), Err(InvalidMessage::RecordTooShort));
        assert_eq!(Alert::decode(&[2]), Err(InvalidMessage::Malformed("alert")));
        assert_eq!(Alert::decode(&[2, 20, 2]), Err(InvalidMessage::TrailingData("alert")));
        assert_eq!(Alert::decode(&[1, 0, 2, 20]), Err(InvalidMessage::TrailingData("alert")));
        for level in (0..=u8::MAX).filter(|level| ![1, 2].contains(level)) {
            assert_eq!(Alert::decode(&[level, 0]), Err(InvalidMessage::Malformed("alert")));
        }
    }

    // TL-02: RFC 8446, section 5.4
    #[test]
    fn a_handshake_or_alert_record_without_content_is_an_unexpected_message() {
        let alert = Alert::decode(&[]).unwrap_err();
        let handshake = MessageAssembler::<TwoPartyMessageType>::new(1).push(&[]).unwrap_err();
        for error in [alert, handshake] {
            assert_eq!(Error::from(error).alert(), Some(AlertDescription::UnexpectedMessage));
        }
    }

    #[test]
    fn the_level_of_the_peer_does_not_change_the_description() {
        let close = Alert::decode(&[2, 0]).unwrap();
        assert_eq!(close.description, AlertDescription::CloseNotify);
        let mac = Alert::decode(&[1, 20]).unwrap();
        assert_eq!(mac.description, AlertDescription::BadRecordMac);
    }
}

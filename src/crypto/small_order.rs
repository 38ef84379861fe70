//! Points of small order on the curve of Ed25519.

/// Whether an encoded Ed25519 point has an order of at most 8.
///
/// A key of small order verifies signatures that nobody made. AWS-LC takes it, `verify_strict` of
/// `ed25519-dalek` does not; with this all libraries take the same signatures.
pub(super) fn is_small_order(point: &[u8; 32]) -> bool {
    let mut y = *point;
    y[31] &= 0x7f; // without the sign of x
    SMALL_ORDER_Y.contains(&y)
}

/// The y-coordinates of the 8 points of small order, and the second encodings of 0 and 1.
const SMALL_ORDER_Y: [[u8; 32]; 7] = [
    [0; 32],
    little_endian(1, 0, 0),
    little_endian(0xec, 0xff, 0x7f), // p - 1
    little_endian(0xed, 0xff, 0x7f), // p
    little_endian(0xee, 0xff, 0x7f), // p + 1
    // The four points of order 8.
    [
        0x26, 0xe8, 0x95, 0x8f, 0xc2, 0xb2, 0x27, 0xb0, 0x45, 0xc3, 0xf4, 0x89, 0xf2, 0xef, 0x98,
        0xf0, 0xd5, 0xdf, 0xac, 0x05, 0xd3, 0xc6, 0x33, 0x39, 0xb1, 0x38, 0x02, 0x88, 0x6d, 0x53,
        0xfc, 0x05,
    ],
    [
        0xc7, 0x17, 0x6a, 0x70, 0x3d, 0x4d, 0xd8, 0x4f, 0xba, 0x3c, 0x0b, 0x76, 0x0d, 0x10, 0x67,
        0x0f, 0x2a, 0x20, 0x53, 0xfa, 0x2c, 0x39, 0xcc, 0xc6, 0x4e, 0xc7, 0xfd, 0x77, 0x92, 0xac,
        0x03, 0x7a,
    ],
];

const fn little_endian(first: u8, middle: u8, last: u8) -> [u8; 32] {
    let mut bytes = [middle; 32];
    bytes[0] = first;
    bytes[31] = last;
    bytes
}

#[cfg(test)]
mod tests {
    use ed25519_dalek::{SigningKey, VerifyingKey};

    use super::*;

    #[test]
    fn the_points_of_small_order_are_those_of_ed25519_dalek() {
        for y in SMALL_ORDER_Y {
            for sign in [0x00, 0x80] {
                let mut point = y;
                point[31] |= sign;
                assert!(is_small_order(&point));
                assert!(VerifyingKey::from_bytes(&point).unwrap().is_weak(), "{point:02x?}");
            }
        }
        assert!(!is_small_order(SigningKey::from_bytes(&[1; 32]).verifying_key().as_bytes()));
    }
}

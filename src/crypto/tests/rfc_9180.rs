//! HPKE in base mode against the vectors of RFC 9180, appendix A.
//!
//! AES-256-GCM with these KEMs is not in the appendix, but in the file that it was made from, the
//! `test-vectors.json` of the CFRG's draft.

use super::*;

/// One message, and what is exported for three contexts: none, a zero, and `TestContext`.
struct Vector {
    config: fn() -> HpkeConfig,
    /// `ikmR`, if the source gives it.
    ikm_r: Option<&'static str>,
    sk_r: &'static str,
    pk_r: &'static str,
    enc: &'static str,
    /// The message with sequence number 0.
    ciphertext: &'static str,
    exports: &'static [&'static str],
}

const VECTORS: [Vector; 6] = [
    // A.1
    Vector {
        config: x25519_aes128,
        ikm_r: Some("6db9df30aa07dd42ee5e8181afdb977e538f5e1fec8a06223f33f7013e525037"),
        sk_r: "4612c550263fc8ad58375df3f557aac531d26850903e55a9f23f21d8534e8ac8",
        pk_r: "3948cfe0ad1ddb695d780e59077195da6c56506b027329794ab02bca80815c4d",
        enc: "37fda3567bdbd628e88668c3c8d7e97d1d1253b6d4ea6d44c150f741f1bf4431",
        ciphertext: "f938558b5d72f1a23810b4be2ab4f84331acc02fc97babc53a52ae8218a355a9\
                     6d8770ac83d07bea87e13c512a",
        exports: &[
            "3853fe2b4035195a573ffc53856e77058e15d9ea064de3e59f4961d0095250ee",
            "2e8f0b54673c7029649d4eb9d5e33bf1872cf76d623ff164ac185da9e88c21a5",
            "e9e43065102c3836401bed8c3c3c75ae46be1639869391d62c61f1ec7af54931",
        ],
    },
    // A.2
    Vector {
        config: || config(HpkeKemType::DhKem25519, HpkeAeadType::ChaCha20Poly1305),
        ikm_r: Some("1ac01f181fdf9f352797655161c58b75c656a6cc2716dcb66372da835542e1df"),
        sk_r: "8057991eef8f1f1af18f4a9491d16a1ce333f695d4db8e38da75975c4478e0fb",
        pk_r: "4310ee97d88cc1f088a5576c77ab0cf5c3ac797f3d95139c6c84b5429c59662a",
        enc: "1afa08d3dec047a643885163f1180476fa7ddb54c6a8029ea33f95796bf2ac4a",
        ciphertext: "1c5250d8034ec2b784ba2cfd69dbdb8af406cfe3ff938e131f0def8c8b60b4db\
                     21993c62ce81883d2dd1b51a28",
        exports: &[
            "4bbd6243b8bb54cec311fac9df81841b6fd61f56538a775e7c80a9f40160606e",
            "8c1df14732580e5501b00f82b10a1647b40713191b7c1240ac80e2b68808ba69",
            "5acb09211139c43b3090489a9da433e8a30ee7188ba8b0a9a1ccf0c229283e53",
        ],
    },
    // A.3
    Vector {
        config: || config(HpkeKemType::DhKemP256, HpkeAeadType::AesGcm128),
        ikm_r: Some("668b37171f1072f3cf12ea8a236a45df23fc13b82af3609ad1e354f6ef817550"),
        sk_r: "f3ce7fdae57e1a310d87f1ebbde6f328be0a99cdbcadf4d6589cf29de4b8ffd2",
        pk_r: "04fe8c19ce0905191ebc298a9245792531f26f0cece2460639e8bc39cb7f706a\
               826a779b4cf969b8a0e539c7f62fb3d30ad6aa8f80e30f1d128aafd68a2ce72ea0",
        enc: "04a92719c6195d5085104f469a8b9814d5838ff72b60501e2c4466e5e67b325a\
              c98536d7b61a1af4b78e5b7f951c0900be863c403ce65c9bfcb9382657222d18c4",
        ciphertext: "5ad590bb8baa577f8619db35a36311226a896e7342a6d836d8b7bcd2f20b6c7f\
                     9076ac232e3ab2523f39513434",
        exports: &[
            "5e9bc3d236e1911d95e65b576a8a86d478fb827e8bdfe77b741b289890490d4d",
            "6cff87658931bda83dc857e6353efe4987a201b849658d9b047aab4cf216e796",
            "d8f1ea7942adbba7412c6d431c62d01371ea476b823eb697e1f6e6cae1dab85a",
        ],
    },
    // A.5
    Vector {
        config: || config(HpkeKemType::DhKemP256, HpkeAeadType::ChaCha20Poly1305),
        ikm_r: None,
        sk_r: "a4d1c55836aa30f9b3fbb6ac98d338c877c2867dd3a77396d13f68d3ab150d3b",
        pk_r: "04a697bffde9405c992883c5c439d6cc358170b51af72812333b015621dc0f40\
               bad9bb726f68a5c013806a790ec716ab8669f84f6b694596c2987cf35baba2a006",
        enc: "04c07836a0206e04e31d8ae99bfd549380b072a1b1b82e563c935c095827824f\
              c1559eac6fb9e3c70cd3193968994e7fe9781aa103f5b50e934b5b2f387e381291",
        ciphertext: "6469c41c5c81d3aa85432531ecf6460ec945bde1eb428cb2fedf7a29f5a685b4\
                     ccb0d057f03ea2952a27bb458b",
        exports: &["9b13c510416ac977b553bf1741018809c246a695f45eff6d3b0356dbefe1e660"],
    },
    Vector {
        config: || config(HpkeKemType::DhKem25519, HpkeAeadType::AesGcm256),
        ikm_r: None,
        sk_r: "497b4502664cfea5d5af0b39934dac72242a74f8480451e1aee7d6a53320333d",
        pk_r: "430f4b9859665145a6b1ba274024487bd66f03a2dd577d7753c68d7d7d00c00c",
        enc: "6c93e09869df3402d7bf231bf540fadd35cd56be14f97178f0954db94b7fc256",
        ciphertext: "e5d84cd531cfb583096e7cfa9641bd3079cf3a91cda813c52deb5f512be99319\
                     80a41de125a925cdad859d5b7a",
        exports: &["ded6cffafaea6b812cbf3e241e88332adbc077aca81512914213810ee291770a"],
    },
    Vector {
        config: || config(HpkeKemType::DhKemP256, HpkeAeadType::AesGcm256),
        ikm_r: None,
        sk_r: "317f915db7bc629c48fe765587897e01e282d3e8445f79f27f65d031a88082b2",
        pk_r: "04abc7e49a4c6b3566d77d0304addc6ed0e98512ffccf505e6a8e3eb25c68513\
               6f853148544876de76c0f2ef99cdc3a05ccf5ded7860c7c021238f9e2073d2356c",
        enc: "04c06b4f6bebc7bb495cb797ab753f911aff80aefb86fd8b6fcc35525f3ab5f0\
              3e0b21bd31a86c6048af3cb2d98e0d3bf01da5cc4c39ff5370d331a4f1f7d5a4e0",
        ciphertext: "58c61a45059d0c5704560e9d88b564a8b63f1364b8d1fcb3c4c6ddc1d2917424\
                     65e902cd216f8908da49f8f96f",
        exports: &["7a4c2b89e1909fb0e3ca42d5040f4c2d8346dc0643d787b8474e804f8f72798e"],
    },
];

fn config(kem: HpkeKemType, aead: HpkeAeadType) -> HpkeConfig {
    HpkeConfig(kem, HpkeKdfType::HkdfSha256, aead)
}

#[test]
fn hpke_matches_rfc_9180() {
    for vector in &VECTORS {
        for provider in providers() {
            check(vector, &provider);
        }
    }
}

fn check(vector: &Vector, provider: &CryptoProvider) {
    let config = vector.config;
    let context = format!("{provider:?} {:?}", config());
    let info = b"Ode on a Grecian Urn";
    let (sk_r, pk_r, enc) = (hex(vector.sk_r), hex(vector.pk_r), hex(vector.enc));
    if let Some(ikm_r) = vector.ikm_r {
        let pair = provider.derive_hpke_keypair(config(), &hex(ikm_r)).unwrap();
        assert_eq!(pair.private.to_vec(), sk_r, "{context}");
        assert_eq!(pair.public, pk_r, "{context}");
    }

    let sealed = HpkeCiphertext {
        kem_output: enc.clone().into(),
        ciphertext: hex(vector.ciphertext).into(),
    };
    let open = |aad| provider.hpke_open(config(), &sealed, &sk_r, info, aad);
    assert_eq!(open(b"Count-0").unwrap(), b"Beauty is truth, truth beauty", "{context}");
    assert!(open(b"Count-1").is_err(), "{context}");

    for (exporter_context, exported) in [&b""[..], b"\0", b"TestContext"].iter().zip(vector.exports)
    {
        let secret = provider
            .hpke_setup_receiver_and_export(config(), &enc, &sk_r, info, exporter_context, 32)
            .unwrap();
        assert_eq!(secret.to_vec(), hex(exported), "{context}");
    }

    // The key pair fits: what is sealed to the public key opens with the private one.
    let sealed = provider.hpke_seal(config(), &pk_r, info, b"aad", b"message").unwrap();
    let opened = provider.hpke_open(config(), &sealed, &sk_r, info, b"aad").unwrap();
    assert_eq!(opened, b"message", "{context}");
}

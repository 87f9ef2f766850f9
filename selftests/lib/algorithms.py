# SPDX-License-Identifier: GPL-2.0
"""The algorithms that minesp accepts according to the documentation, and some that it
refuses. The names are the kernel's."""

AES = (16, 24, 32)  # key lengths in bytes

# Key lengths in bytes, ICV lengths in bits
AEADS = {"rfc4106(gcm(aes))": ({n + 4 for n in AES}, {128}),
         "rfc7539esp(chacha20,poly1305)": ({36}, {128}),
         "rfc4309(ccm(aes))": ({n + 3 for n in AES}, {64, 128}),
         "rfc4543(gcm(aes))": ({n + 4 for n in AES}, {128})}
IMPLICITS = {("rfc4106(gcm(aes))", 128), ("rfc7539esp(chacha20,poly1305)", 128),
             ("rfc4309(ccm(aes))", 64)}
AUTHS = {"hmac(sha256)": (32, 128), "hmac(sha512)": (64, 256),
         "xcbc(aes)": (16, 96), "cmac(aes)": (16, 96)}
WEAK_AUTHS = {"hmac(md5)": (16, 96), "hmac(sha1)": (20, 96),
              "hmac(sha384)": (48, 192), "hmac(rmd160)": (20, 96)}
# Key lengths in bytes
ENCS = {"cbc(aes)": set(AES), "rfc3686(ctr(aes))": {n + 4 for n in AES},
        "ecb(cipher_null)": {0}}
WEAK_CIPHERS = {"cbc(des)": 8, "cbc(des3_ede)": 24, "cbc(blowfish)": 16,
                "cbc(cast5)": 16, "cbc(camellia)": 16, "cbc(serpent)": 16}
# ICV length in bits that the kernel uses if a request gives none
DEFAULT_ICV = {"hmac(sha256)": 96, "hmac(sha512)": 256, "xcbc(aes)": 96,
               "cmac(aes)": 96}

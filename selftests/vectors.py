#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0
"""Published test vectors, as packets that minesp receives: RFC 7634 appendix A,
draft-mcgrew-gcm-test-01, RFC 3602 section 4, RFC 3686 section 6, RFC 4868 section
2.7.2, RFC 3566 section 4, RFC 4493 section 4.

minesp cannot send any of them. From the SN of a vector with an IV, it makes another
IV. The other vectors are not packets."""
import hmac
import socket

import lib
from lib import scapy_peer

A, B = (lib.ADDRESSES["outer", 4][h] for h in "ab")


@lib.fixture
def peer():
    with scapy_peer.peer() as p:
        yield p


def take(words, esp, payload, nh, seq_hi=None):
    """Sends the packet to an SA. A socket for the protocol has to get the payload."""
    if seq_hi is not None:
        words += f" flag esn replay-seq-hi {seq_hi}"
    sa = (f"xfrm state add src {B} dst {A} proto esp spi 0x{esp[:4].hex()} "
          f"mode transport replay-window 32 {words}")
    p = peer()
    p.a.ip(f"xfrm state flush\nxfrm policy flush\n{sa}")
    before = p.counters()
    if nh is None:
        # The ICV is valid, but the content is not a packet.
        p.send(p.frame(esp))
        p.counts(before, InPadLength=1, XfrmInStateProtoError=1)
    else:
        with p.a.socket(socket.AF_INET, socket.SOCK_RAW, nh) as sock:
            p.send(p.frame(esp))
            got = sock.recv(1 << 16)
        lib.equal(got[(got[0] & 15) * 4:], payload, "payload")
    # minesp does check the ICV.
    before = p.counters()
    p.a.ip(f"xfrm state flush\n{sa}")
    p.send(p.frame(scapy_peer.spoilt(esp)))
    p.counts(before, InIcvWrong=1, XfrmInStateProtoError=1)


def aead(name, algorithm, key, icv, head, iv, plain, sealed):
    """head: SPI and SN, with ESN in the order of the associated data."""
    key, head, iv, plain, sealed = map(bytes.fromhex, (key, head, iv, plain, sealed))
    seq_hi = int.from_bytes(head[4:8], "big") if len(head) == 12 else None
    end = len(plain) - 2 - plain[-2]
    return name, lambda: take(f"aead {algorithm} 0x{key.hex()} {icv}",
                              head[:4] + head[-4:] + iv + sealed, plain[:end],
                              plain[-1], seq_hi)


def enc(name, algorithm, key, head, iv, plain, text):
    """A vector of a cipher alone, to which we add an ICV"""
    key, head, iv, plain, text = map(bytes.fromhex, (key, head, iv, plain, text))
    mackey = bytes(range(32))
    esp = head + iv + text
    esp += hmac.digest(mackey, esp, "sha256")[:16]
    end = len(plain) - 2 - plain[-2]
    return name, lambda: take(f"enc {algorithm} 0x{key.hex()} "
                              f"auth-trunc hmac(sha256) 0x{mackey.hex()} 128",
                              esp, plain[:end], plain[-1])


def mac(name, algorithm, key, message, icv):
    """A vector of an authenticator alone. Its message, which the ICV covers, is the packet
    from SPI to Next Header. So the Pad Length is absurd."""
    if isinstance(message, str):
        message = bytes.fromhex(message)
    esp = message + bytes.fromhex(icv)
    return name, lambda: take(f"enc ecb(cipher_null) '' auth-trunc {algorithm} "
                              f"0x{key} {len(icv) * 4}", esp, None, None)


PING = ("08090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f"
        "202122232425262728292a2b2c2d2e2f3031323334353637")
AES_GCM, AES_CTR = "rfc4106(gcm(aes))", "rfc3686(ctr(aes))"


def cases():
    yield aead("RFC 7634 appendix A", "rfc7539esp(chacha20,poly1305)",
               "808182838485868788898a8b8c8d8e8f909192939495969798999a9b9c9d9e9f"
               "a0a1a2a3", 128, "01020304" "00000005", "1011121314151617",
               "45000054a6f200004001e778c6336405c000020508005b7a3a080000553bec10"
               "0007362708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f20212223"
               "2425262728292a2b2c2d2e2f3031323334353637" "01020204",
               "24039428b97f417e3c13753a4f05087b67c352e6a7fab1b982d466ef407ae5c6"
               "14ee8099d52844eb61aa95dfab4c02f72aa71e7c4c4f64c9befe2facc638e8f3"
               "cbec163fac469b502773f6fb94e664da9165b82829f641e0"
               "76aaa8266b7fb0f7b11b369907e1ad43")
    yield aead("draft-mcgrew-gcm-test, ESN", AES_GCM,
               "4c80cdefbb5d10da906ac73c3613a6342e443b68", 128,
               "00004321" "8765432100000000", "4956ed7e3b244cfe",
               "45000048699a000080114db7c0a80102c0a801010a9bf15638d3010000010000"
               "00000000045f736970045f756470037369700963796265726369747902646b00"
               "0021000101020201",
               "fecf537e729d5b07dc30df528dd22b768d1b98736696a6fd348509fa13ceac34"
               "cfa2436f14a3f3cf65925bf1f4a13c5d15b21e1884f5ff6247aeabb786b93bce"
               "61bc17d768fd9732459018148f6cbe722fd04796562dfdb4")
    yield aead("draft-mcgrew-gcm-test, 128 bits", AES_GCM,
               "feffe9928665731c6d6a8f9467308308cafebabe", 128,
               "0000a5f8" "0000000a", "facedbaddecaf888",
               "4500003e698f000080114dccc0a80102c0a801010a980035002a2343b2d00100"
               "000100000000000003736970096379626572636974790264" "6b00000100010001",
               "deb22cd9b07c72c16e3a65beeb8df304a5a5897d33ae530f1ba76d5d114d2a5c"
               "3de81827c10e9a4f51330d0eec416642cfbb85a5b47e48a4ec3b9ba95d918bd1"
               "83b70d3aa8bc6ee4c309e9d85a41ad4a")
    yield aead("draft-mcgrew-gcm-test, 192 bits", AES_GCM,
               "feffe9928665731c6d6a8f9467308308feffe9928665731ccafebabe", 128,
               "0000a5f8" "0000000a", "facedbaddecaf888",
               "45000028a4ad4000400678800a01038f0a010612802306b8cb712602dd6bb03e"
               "501016d075680001",
               "a5b1f8066029aea40e598b8122de02420938b3ab33f828e687b8858b5bfbdbd0"
               "315b27452144cc7795457b9652037f5318027b5b4cd7a636")
    yield aead("draft-mcgrew-gcm-test, 256 bits", AES_GCM,
               "abbccddef00112233445566778899aababbccddef00112233445566778899aab"
               "11223344", 128, "4a2cbfe3" "00000002", "0102030405060708",
               "4500003069a6400080062690c0a801029389155e0a9e008b2dc57ee000000000"
               "7002400020bf0000020405b40101040201020201",
               "ff425c9b724599df7a3bcd510194e00d6a78107f1b0b1cbf06efae9d65a5d763"
               "748a637985771d347f0545659f14e99def842d8eb335f4eecfdbf831824b4c49"
               "15956c96")
    yield aead("draft-mcgrew-gcm-test, GMAC", "rfc4543(gcm(aes))",
               "4c80cdefbb5d10da906ac73c3613a63422433c64", 128,
               "00004321" "00000007", "0000000000000000",
               "45000030da3a00008001df3bc0a80005c0a800010800c6cd0200070061626364"
               "65666768696a6b6c6d6e6f707172737401020201",
               "45000030da3a00008001df3bc0a80005c0a800010800c6cd0200070061626364"
               "65666768696a6b6c6d6e6f707172737401020201"
               "f2a9a836e155106aa8dcd618e4099aaa")

    yield enc("RFC 3602 case 5", "cbc(aes)", "90d382b410eeba7ad938c46cec1a82bf",
              "00004321" "00000001", "e96e8c08ab465763fd098d45dd3ff893",
              "08000ebda70a00008e9c083db95b0700" + PING +
              "0102030405060708090a0b0c0d0e" "0e01",
              "f663c25d325c18c6a9453e194e120849a4870b66cc6b9965330013b4898dc856"
              "a4699e523a55db080b59ec3a8e4b7e52775b07d1db34ed9c538ab50c551b874a"
              "a269add047ad2d5913ac19b7cfbad4a6")
    yield enc("RFC 3602 case 6", "cbc(aes)", "90d382b410eeba7ad938c46cec1a82bf",
              "00004321" "00000008", "69d08df7d203329db093fc4924e5bd80",
              "0800b5e8a80a0500a69c083d0b660e00777777777777777777777777"
              "01020201",
              "f51995881ec4e0c4488987ce742e8109689bb379d2d750c0d915dca346a89f75")
    yield enc("RFC 3602 case 7", "cbc(aes)", "0123456789abcdef0123456789abcdef",
              "00008765" "00000002", "f4e765244f6407adf13dc1380f673f37",
              "45000054090400004001f988c0a87b03c0a87bc8"
              "08009f76a90a0100b49c083d02a20400" + PING +
              "0102030405060708090a" "0a04",
              "773b5241a4c449225e4f3ce5ed611b0c237ca96cf74a93013c1b0ea1a0cf70f8"
              "e4ecaec78ac53aad7a0f022b859243c647752e94a859352b8a4d4d2decd136e5"
              "c177f132ad3fbfb2201ac9904c74ee0a109e0ca1e4dfe9d5a100b842f1c22f0d")
    yield enc("RFC 3602 case 8", "cbc(aes)", "0123456789abcdef0123456789abcdef",
              "00008765" "00000005", "85d47224b5f3dd5d2101d4ea8dffab22",
              "45000044090c00004001f990c0a87b03c0a87bc8"
              "0800d63caa0a0200c69c083da3de0300" + "ff" * 32 +
              "0102030405060708090a" "0a04",
              "15b92683819596a8047232cc00f7048fe45318e11f8a0f62ede3c3fc61203bb5"
              "0f980a08c9843fd3a1b06d5c07ff9639b7eb7dfb3512e5de435e7207ed971ef3"
              "d2726d9b5ef6affc6d17a0decbb13892")
    # The last bytes of these plaintexts read as padding back to the very beginning, so
    # only the last two bytes and the length are compared.
    for number, key, nonce, iv, length, text in (
            (2, "7e24067817fae0d743d6ce1f32539163", "006cb6db",
             "c0543b59da48d90b", 32,
             "5104a106168a72d9790d41ee8edad388eb2e1efc46da57c8fce630df9141be28"),
            (3, "7691be035e5020a8ac6e618529f9a0dc", "00e0017b",
             "27777f3f4a1786f0", 36,
             "c1cf48a89f2ffdd9cf4652e9efdb72d74540a42bde6d7836d59a5ceaaef31053"
             "25b2072f"),
            (5, "7c5cb2401b3dc33c19e7340819e0f69c678c3db8e6f6a91a", "0096b03b",
             "020c6eadc2cb500d", 32,
             "453243fc609b23327edfaafa7131cd9f8490701c5ad4a79cfc1fe0ff42f4fb00"),
            (8, "f6d66d6bd52d59bb0796365879eff886c66dd51a5b6a99744b50590c87a23884",
             "00faac24", "c1585ef15a43d875", 32,
             "f05e231b3894612c49ee000b804eb2a9b8306b508f839d6a5530831d9344af1c")):
        yield enc(f"RFC 3686 test vector {number}", AES_CTR, key + nonce,
                  "00001000" "00000001", iv, bytes(range(length)).hex(), text)

    key = "4a656665" * 8
    what = b"what do ya want for nothing?"
    yield mac("RFC 4868 AUTH256-2", "hmac(sha256)", key, what,
              "167f928588c5cc2eef8e3093caa0e87c")
    yield mac("RFC 4868 AUTH256-3", "hmac(sha256)", "aa" * 32, "dd" * 50,
              "cdcb1220d1ecccea91e53aba3092f962")
    counting = bytes(range(1, 33)).hex()
    yield mac("RFC 4868 AUTH256-4", "hmac(sha256)", counting, "cd" * 50,
              "372efcf9b40b35c2115b1346903d2ef4")
    yield mac("RFC 4868 AUTH512-2", "hmac(sha512)", key * 2, what,
              "cb370917ae8a7ce28cfd1d8f4705d6141c173b2a9362c15df235dfb251b15454")
    yield mac("RFC 4868 AUTH512-3", "hmac(sha512)", "aa" * 64, "dd" * 50,
              "2ee7acd783624ca9398710f3ee05ae41b9f9b0510c87e49e586cc9bf961733d8")

    key = bytes(range(16)).hex()
    for number, length, icv in ((3, 16, "d2a246fa349b68a79998a439"),
                                (4, 20, "47f51b4564966215b8985c63"),
                                (5, 32, "f54f0ec8d2b9f3d36807734b"),
                                (6, 34, "becbb3bccdb518a30677d548")):
        yield mac(f"RFC 3566 test case {number}", "xcbc(aes)", key,
                  bytes(range(length)), icv)
    message = ("6bc1bee22e409f96e93d7e117393172aae2d8a571e03ac9c9eb76fac45af8e51"
               "30c81c46a35ce411e5fbc1191a0a52eff69f2445df4f9b17ad2b417be66c3710")
    key = "2b7e151628aed2a6abf7158809cf4f3c"
    for length, icv in ((16, "070a16b46b4d4144f79bdd9d"),
                        (40, "dfa66747de9ae63030ca3261"),
                        (64, "51f0bebf7e3b9d92fc497417")):
        yield mac(f"RFC 4493 example of {length} bytes", "cmac(aes)", key,
                  message[:length * 2], icv)


if __name__ == "__main__":
    lib.run(cases(), needs=["ip"],
            imports=["scapy", "cryptography"])

"""The version of aisc: part of every key and every bundle."""

VERSION = "0.1.0"

# Every target sets up what it needs; nothing but python3, git and root (or sudo) is assumed.

Boutput_0J$!ÀQ˜¿Ÿ@ä.½¿Ğj‹?U*Î¿tqq¿
ÑF¿pœK@
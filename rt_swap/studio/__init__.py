"""The page: a browser's camera goes in over WebRTC, the re-expressed picture comes back.

``controls`` is what a user can set, ``gallery`` the expressions they choose from, ``jobs`` whole
files, ``session`` one live stream on its thread, ``webrtc`` its way to the browser, ``guard`` who
may ask, ``app`` the HTTP side, ``server`` the process. The page itself is in ``web``: plain HTML,
CSS and ES modules, which load nothing from anywhere else.
"""

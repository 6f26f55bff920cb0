"""Django: sessions, `django.contrib.auth` and the admin on top of coatcheck, under WSGI and ASGI.

INSTALLED_APPS       "coatcheck.web.django"                      in place of "django.contrib.sessions"
MIDDLEWARE           "coatcheck.web.django.CoatcheckMiddleware"  in place of Django's SessionMiddleware
SESSION_ENGINE       "coatcheck.web.django"
SESSION_COOKIE_NAME  "__Host-session"                            the name in the policy
COATCHECK            "project.coat.coat"                         the Coatcheck, or where it is
"""

from django.contrib.auth.signals import user_logged_in

from coatcheck.web.django.middleware import CoatcheckMiddleware, exchange
from coatcheck.web.django.store import SessionStore, follow_login

__all__ = ["CoatcheckMiddleware", "SessionStore", "exchange"]

user_logged_in.connect(follow_login, dispatch_uid="coatcheck")

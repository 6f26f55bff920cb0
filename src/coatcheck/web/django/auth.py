"""`request.user` for access tokens too, and for sessions that began elsewhere: an AuthenticationMiddleware."""

from __future__ import annotations

from functools import partial
from typing import Any

from django.contrib.auth import SESSION_KEY, get_backends, get_user_model
from django.contrib.auth.middleware import AuthenticationMiddleware as ByTheSession
from django.contrib.auth.models import AnonymousUser
from django.core.exceptions import ValidationError
from django.http import HttpRequest, HttpResponseBase
from django.utils.functional import SimpleLazyObject

from coatcheck.core.claims import Principal
from coatcheck.web.django.middleware import exchange


class AuthenticationMiddleware(ByTheSession):
    """Django's, and where Django has signed nobody in, `request.user` is the user whose primary key the subject is.

    So it is for requests with an access token, without a look at the store, and for sessions that another application
    on the same store has made. In MIDDLEWARE it stands in Django's place, after CoatcheckMiddleware. Whoever must
    have come with a credential, `exchange(request).require()` says.

    Not checked: that the password of such a user is still what it was. Who changes it ends the other sessions:
    `sign_out_others`.
    """

    def process_request(self, request: HttpRequest) -> None:
        """Set `request.user` and `request.auser`; both are looked up when they are asked for.

        Raises:
            ConfigurationError: CoatcheckMiddleware is not installed, or comes after this one.
        """
        exchange(request)  # or Django would ask for its own SessionMiddleware
        super().process_request(request)
        request.user = SimpleLazyObject(partial(_user, request, request.user))  # type: ignore[assignment] # a proxy
        request.auser = partial(_auser, request, request.auser)

    async def __acall__(self, request: HttpRequest) -> HttpResponseBase:
        """Serve a request. Nothing here waits, which spares it two changes of threads."""
        self.process_request(request)
        return await self.get_response(request)  # type: ignore[misc, no-any-return] # it is of the same kind


def _user(request: HttpRequest, by_the_session: Any) -> Any:
    principal = exchange(request).principal
    if principal is None or SESSION_KEY in request.session:
        return by_the_session
    key = _key(principal)
    found = (backend.get_user(key) for backend in get_backends() if key is not None)
    return next(filter(None, found), None) or AnonymousUser()


async def _auser(request: HttpRequest, by_the_session: Any) -> Any:
    principal = exchange(request).principal
    if principal is None or await request.session.ahas_key(SESSION_KEY):
        return await by_the_session()
    key = _key(principal)
    for backend in get_backends() if key is not None else ():
        if (user := await backend.aget_user(key)) is not None:
            return user
    return AnonymousUser()


def _key(principal: Principal) -> Any:
    """Return the primary key that a subject stands for, or None if it cannot be one."""
    try:
        return get_user_model()._meta.pk.to_python(principal.subject)  # noqa: SLF001 - documented, and public
    except ValidationError:
        return None

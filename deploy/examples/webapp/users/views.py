"""`POST /users` with `{"name": …, "email": …}` -> a new user. Edge: HTTP."""

import json

from django.core.exceptions import ValidationError
from django.db import IntegrityError
from django.http import HttpRequest, JsonResponse
from django.views.decorators.http import require_POST

from users.use_cases import create_user


@require_POST
def users(request: HttpRequest) -> JsonResponse:
    """Create a user: 201 with its id, 400 for an invalid request, 409 for an address that is taken."""
    try:
        body = json.loads(request.body)
        name, email = str(body["name"]), str(body["email"])
    except (ValueError, KeyError, TypeError):
        return JsonResponse({"error": 'send {"name": …, "email": …}'}, status=400)
    try:
        user = create_user(name, email)
    except ValidationError as error:
        is_taken = "unique" in {one.code for ones in error.error_dict.values() for one in ones}
        return JsonResponse({"error": error.message_dict}, status=409 if is_taken else 400)
    except IntegrityError:
        return JsonResponse({"error": {"email": ["it is taken"]}}, status=409)
    return JsonResponse({"id": user.pk}, status=201)
